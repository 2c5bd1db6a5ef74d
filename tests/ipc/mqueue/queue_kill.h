// A process killed after every machine instruction of an operation of a queue,
// told as a table like that of tests/testing/kill_operations.h; and what is
// expected of the survivors afterwards, whatever the operation was: they can
// send and receive, within two park ticks; messages are whole, and each is
// delivered as queue.h says; no slot, no block and no participant is lost.
#ifndef TESTS_IPC_MQUEUE_QUEUE_KILL_H_
#define TESTS_IPC_MQUEUE_QUEUE_KILL_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <ostream>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "ipc/mqueue/policy.h"
#include "ipc/mqueue/queue.h"

namespace ipc::mqueue {

// Long enough never to pass unless something hangs.
inline constexpr absl::Duration kKillPatience = absl::Seconds(20);

// Who sent a message: it was there before or is sent by Wake, is the one that
// the victim sends or receives, or was sent after the kill.
enum Sender : uint64_t { kBefore = 1, kVictims = 2, kAfter = 3 };

// How often the survivors get a message, by when the victim was killed.
enum class Effect {
  kNone,         // never: there is no such message
  kAppears,      // not before some point, and always from there on
  kDisappears,   // always before some point, and not from there on
  kStays,        // always, exactly once
  kTakenByWake,  // always, unless Wake has taken it
  kSentByWake,   // never before Wake, then as kDisappears
};

// Whether it then says redelivered().
enum class Redelivery {
  kNever,
  kOnceTaken,  // from the point on at which the victim has taken it
  kAlways,
};

struct Fate {
  Effect effect = Effect::kNone;
  Redelivery redelivery = Redelivery::kNever;
};

// A further process that sleeps in a call while the victim is killed, which it
// waits for. Nobody else then looks for the dead.
enum class Sleeper {
  kNone,
  kReceives,  // returns whose message it received
  kSends,     // at last sends that of kAfter, and returns 0
  kEnds,      // receives the end of the queue, and returns 0
};

struct QueueKill {
  const char* name = "";
  Options options = {};
  size_t message_bytes = 0;  // what is sent, by anybody
  Fate before = {};
  Fate victims = {};
  // In the parent, before the fork: what has to be there.
  std::function<void(Queue&)> arrange = [](Queue&) {};
  // In the sleeper.
  Sleeper sleeper = Sleeper::kNone;
  std::function<int(Queue&)> sleep = nullptr;
  // In the victim: what it does before the first instruction that counts, and
  // what it is killed in.
  std::function<void(Queue&)> prepare = [](Queue&) {};
  std::function<void(Queue&)> operate = nullptr;
  // In the parent, while the victim sleeps.
  std::function<void(Queue&)> wake = nullptr;

  friend void PrintTo(const QueueKill& kill, std::ostream* out) {
    *out << kill.name;
  }
};

// The message of `sender`, of exactly so many bytes; and whose it is, or 0 if
// it is not whole.
std::string KillText(Sender sender, size_t bytes);
uint64_t KillSender(absl::string_view text);

// Few slots, so that every position next to the ends of the ring occurs, and
// blocks of half the length of a long message.
Options KillOptions(uint64_t slots, size_t bytes, Delivery delivery);
inline constexpr size_t kInline = 64, kLarge = 1000;

// How the survivors go on.
enum class Survivors {
  // One, by calls that do not wait for anything that may not come.
  kPoll,
  // A sender and a receiver, each by a call that waits, and nobody has looked
  // for the dead before.
  kWait,
};

// Kills it everywhere and prints what came of it.
void CheckSurvival(const QueueKill& kill, Survivors survivors);

}  // namespace ipc::mqueue

#endif  // TESTS_IPC_MQUEUE_QUEUE_KILL_H_

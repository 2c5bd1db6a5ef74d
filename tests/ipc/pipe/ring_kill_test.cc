// One end of a ring killed: after every machine instruction of every operation,
// and at random for some seconds. Afterwards the other end goes on, nothing is
// torn, nothing that was committed is lost, and a successor takes over.
//
//   bazel test -c opt //tests/ipc/pipe:ring_kill_test
//
// Without -c opt there are several times as many instructions, and only every
// eleventh is a point.
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <new>
#include <optional>
#include <random>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "ipc/base/unique_fd.h"
#include "ipc/pipe/ring.h"
#include "ipc/pipe/ring_layout.h"
#include "ipc/pipe/ring_memory.h"
#include "tests/testing/child.h"
#include "tests/testing/kill_operations.h"
#include "tests/testing/kill_points.h"

namespace ipc::pipe {
namespace {

using testing::Child;
using testing::KillPoint;
using Observed = testing::Survival;

constexpr size_t kPage = 4096;
// Long enough never to pass unless something hangs.
constexpr absl::Duration kPatience = absl::Seconds(20);
constexpr absl::Duration kNow = absl::ZeroDuration();

UniqueFd Dup(int fd) { return UniqueFd(fcntl(fd, F_DUPFD_CLOEXEC, 0)); }

// The `n`th message: its number, and so many times more the same.
std::string Message(uint64_t n, size_t words) {
  std::string message((words + 1) * sizeof(n), '\0');
  for (size_t i = 0; i <= words; ++i) {
    std::memcpy(message.data() + i * sizeof(n), &n, sizeof(n));
  }
  return message;
}
// Its number, or nothing if it is torn.
std::optional<uint64_t> NumberOf(absl::string_view message) {
  uint64_t n;
  if (message.size() < sizeof(n)) return std::nullopt;
  std::memcpy(&n, message.data(), sizeof(n));
  if (message != Message(n, message.size() / sizeof(n) - 1)) {
    return std::nullopt;
  }
  return n;
}

// A ring, new for each kill, and in this process the end that is not killed.
class World : public testing::KillWorld {
 public:
  void AttachSender() { sender.emplace(*RingSender::FromFd(Dup(fd.get()))); }
  void AttachReceiver() {
    receiver.emplace(*RingReceiver::FromFd(Dup(fd.get())));
  }

  // Sends the next message, of so many words besides its number.
  void Send(size_t words = 2) {
    ASSERT_TRUE(sender->Send(Message(sent, words), kNow).ok());
    ++sent;
  }
  // Fills the ring; how many messages that took.
  void Fill() {
    while (sender->Send(Message(sent, 6), kNow).ok()) ++sent;
  }
  // Receives the next message, and expects it to be that.
  void Receive() {
    const absl::StatusOr<View> view = receiver->Receive(kPatience);
    ASSERT_TRUE(view.ok()) << view.status();
    EXPECT_EQ(NumberOf(view->text()), received);
    ++received;
  }

  // A third process at one end, which falls asleep there.
  void StartSleepingReceiver() {
    other.emplace(Child::Fork([&]() -> int {
      absl::StatusOr<RingReceiver> end = RingReceiver::FromFd(Dup(fd.get()));
      if (!end.ok()) return 1;
      const absl::StatusOr<View> view = end->Receive(kPatience);
      // No destructor closes the ring under the hands of the victim.
      if (absl::IsUnavailable(view.status())) _exit(2);
      _exit(view.ok() && NumberOf(view->text()) == 0u ? 3 : 4);
    }));
    AwaitSleepingReceiver();
  }
  void AwaitSleepingReceiver() {
    while (memory->header().receiver_bell.waiting.load() == 0) sched_yield();
  }
  void StartSleepingSender() {
    other.emplace(Child::Fork([&]() -> int {
      absl::StatusOr<RingSender> end = RingSender::FromFd(Dup(fd.get()));
      if (!end.ok()) return 1;
      _exit(end->Send(Message(sent, 6), kPatience).ok() ? 0 : 2);
    }));
    while (memory->header().sender_bell.waiting.load() == 0) sched_yield();
  }

  UniqueFd fd = *CreateRing({.capacity_bytes = kPage});
  std::optional<internal::RingMemory> memory =
      *internal::RingMemory::Map(fd.get());
  std::optional<RingSender> sender;
  std::optional<RingReceiver> receiver;
  std::optional<Child> other;
  uint64_t sent = 0;
  uint64_t received = 0;
};

using Operation = testing::KillOperation<World>;
// gcc 12 finds the initializers of its members in no other way.
static_assert(std::is_default_constructible_v<Operation>);

// Receives all there is, which is whole and in order, until the end, which is
// one of those; returns how many there were.
uint64_t Drain(World& world, std::vector<absl::StatusCode> ends) {
  uint64_t n = 0;
  while (true) {
    const absl::StatusOr<View> view = world.receiver->Receive(kPatience);
    if (!view.ok()) {
      EXPECT_TRUE(std::count(ends.begin(), ends.end(), view.status().code()) ==
                  1)
          << view.status();
      return n;
    }
    EXPECT_EQ(NumberOf(view->text()), world.received) << "torn, or not next";
    EXPECT_FALSE(view->redelivered());
    ++world.received;
    ++n;
  }
}

// After a sender's death: what was committed arrives; a successor sends more.
void CheckSent(World& world, const KillPoint& point, Observed& observed,
               uint64_t before, uint64_t in_operation) {
  const uint64_t n = Drain(world, {absl::StatusCode::kUnavailable});
  EXPECT_TRUE(n == before || n == before + in_operation) << n;
  observed.Effect(point, n == before + in_operation);
  world.sent = world.received;
  world.AttachSender();
  world.Send();
  world.Send(200);
  world.Receive();
  world.Receive();
}

// After a receiver's death: a successor gets the `count` messages of the
// operation again unless they were acknowledged, and then all the others.
void CheckReceived(World& world, const KillPoint& point, Observed& observed,
                   uint64_t count) {
  world.AttachReceiver();
  bool first = true;
  while (world.received < world.sent) {
    const absl::StatusOr<View> view = world.receiver->Receive(kPatience);
    ASSERT_TRUE(view.ok()) << view.status();
    const std::optional<uint64_t> number = NumberOf(view->text());
    ASSERT_TRUE(number.has_value()) << "torn";
    if (first) {
      EXPECT_TRUE(*number == world.received ||
                  *number == world.received + count)
          << *number;
      observed.Effect(point, *number != world.received);
      if (view->redelivered()) {
        EXPECT_EQ(*number, world.received);
      }
      world.received = *number;
      first = false;
    }
    EXPECT_EQ(*number, world.received);
    EXPECT_FALSE(view->redelivered() && *number >= count);
    ++world.received;
  }
}

std::vector<Operation> Senders() {
  const auto receiver = [](World& world) { world.AttachReceiver(); };
  const auto attach = [](World& world) { world.AttachSender(); };
  // So that the next record crosses the end.
  const auto near_the_end = [](World& world) {
    world.AttachReceiver();
    world.AttachSender();
    for (int i = 0; i < 10; ++i) {
      world.Send(49);
      world.Receive();
    }
    world.sender->Leave();
  };
  const auto send = [](size_t words) {
    return [words](World& world) {
      (void)world.sender->Send(Message(world.sent, words));
    };
  };
  const auto check = [](uint64_t count) {
    return [count](World& world, const KillPoint& point, Observed& observed) {
      CheckSent(world, point, observed, 0, count);
    };
  };
  return {
      {.name = "Send",
       .arrange = receiver,
       .prepare = attach,
       .operate = send(2),
       .check = check(1)},
      {.name = "SendAcrossTheEnd",
       .arrange = near_the_end,
       .prepare = attach,
       .operate = send(30),
       .check = check(1)},
      {.name = "SendLong",
       .arrange = receiver,
       .prepare = attach,
       .operate = send(100),
       .check = check(1)},
      {.name = "SendBatch",
       .arrange = receiver,
       .prepare = attach,
       .operate =
           [](World& world) {
             const std::string a = Message(0, 1), b = Message(1, 70);
             (void)world.sender->SendBatch({a, b});
           },
       .check = check(2)},
      {.name = "SendToASleepingReceiver",
       .arrange = [](World& world) { world.StartSleepingReceiver(); },
       .prepare =
           [](World& world) {
             // Which wakes it, once.
             world.AttachSender();
             world.AwaitSleepingReceiver();
           },
       .operate = send(2),
       .check =
           [](World& world, const KillPoint& point, Observed& observed) {
             const int told = world.other->Wait();
             EXPECT_TRUE(told == 2 || told == 3) << told;
             observed.Effect(point, told == 3);
           }},
      {.name = "SendToAFullRing",
       .arrange =
           [](World& world) {
             world.AttachReceiver();
             world.AttachSender();
             world.Fill();
             world.sender->Leave();
           },
       .prepare = attach,
       .operate = send(6),
       // One is not enough for the head to be published.
       .wake =
           [](World& world) {
             for (int i = 0; i < 9; ++i) world.Receive();
           },
       .check =
           [](World& world, const KillPoint& point, Observed& observed) {
             const uint64_t left = world.sent - world.received;
             const uint64_t n = Drain(world, {absl::StatusCode::kUnavailable});
             EXPECT_TRUE(n == left || n == left + 1) << n;
             EXPECT_TRUE(point.woken || n == left);
             if (point.woken) observed.Effect(point, n == left + 1);
             world.sent = world.received;
             world.AttachSender();
             world.Fill();
             world.Receive();
           }},
      {.name = "ReserveAndDrop",
       .arrange = receiver,
       .prepare = attach,
       .operate =
           [](World& world) {
             absl::StatusOr<Reservation> room = world.sender->Reserve(100);
             std::memset(room->span().data(), 0xff, 100);
           },
       .check =
           [](World& world, const KillPoint&, Observed&) {
             EXPECT_EQ(Drain(world, {absl::StatusCode::kUnavailable}), 0u);
             world.AttachSender();
             world.Send();
             world.Receive();
           }},
      {.name = "CloseForSend",
       .arrange = receiver,
       .prepare = attach,
       .operate = [](World& world) { world.sender->CloseForSend(); },
       .check =
           [](World& world, const KillPoint& point, Observed& observed) {
             const absl::Status end =
                 world.receiver->Receive(kPatience).status();
             EXPECT_TRUE(absl::IsUnavailable(end) || absl::IsOutOfRange(end))
                 << end;
             observed.Effect(point, absl::IsOutOfRange(end));
           }},
      {.name = "AttachAsSender",
       .arrange =
           [](World& world) {
             world.AttachReceiver();
             world.AttachSender();
             world.Send();
             world.sender->Leave();
           },
       .operate = attach,
       .check =
           [](World& world, const KillPoint&, Observed&) {
             world.Receive();
             // It has died, or nobody knows that it ever was.
             const absl::Status end =
                 world.receiver->Receive(absl::Milliseconds(1)).status();
             EXPECT_TRUE(absl::IsUnavailable(end) ||
                         absl::IsDeadlineExceeded(end))
                 << end;
             world.AttachSender();
             world.Send();
             world.Receive();
           }},
  };
}

std::vector<Operation> Receivers() {
  const auto attach = [](World& world) { world.AttachReceiver(); };
  const auto three = [](World& world) {
    world.AttachSender();
    for (const size_t words : {2, 100, 3}) world.Send(words);
  };
  const auto check = [](uint64_t count) {
    return [count](World& world, const KillPoint& point, Observed& observed) {
      CheckReceived(world, point, observed, count);
      world.Send();
      world.Receive();
    };
  };
  return {
      {.name = "ReceiveAndAcknowledge",
       .arrange = three,
       .prepare = attach,
       .operate =
           [](World& world) { const auto view = world.receiver->Receive(); },
       .check = check(1)},
      {.name = "ReceiveALongOne",
       .arrange =
           [](World& world) {
             world.AttachSender();
             world.Send(1);
             world.AttachReceiver();
             world.Receive();
             world.receiver->Leave();
             world.Send(100);
             world.Send(1);
           },
       .prepare = attach,
       .operate =
           [](World& world) { const auto view = world.receiver->Receive(); },
       .check =
           [](World& world, const KillPoint&, Observed&) {
             world.AttachReceiver();
             const auto view = world.receiver->Receive(kPatience);
             ASSERT_TRUE(view.ok()) << view.status();
             const auto number = NumberOf(view->text());
             EXPECT_TRUE(number == 1u || number == 2u);
           }},
      {.name = "ReceiveABatch",
       .arrange = three,
       .prepare = attach,
       .operate =
           [](World& world) {
             auto batch = world.receiver->ReceiveBatch();
             while (batch->Next() && NumberOf(batch->text()) != 1u) continue;
           },
       .check = check(2)},
      {.name = "ReceiveWithASleepingSender",
       .arrange =
           [](World& world) {
             world.AttachSender();
             world.Fill();
             world.sender->Leave();
             world.StartSleepingSender();
           },
       .prepare = attach,
       .operate =
           [](World& world) {
             for (int i = 0; i < 9; ++i) {
               const auto view = world.receiver->Receive();
             }
           },
       .check =
           [](World& world, const KillPoint&, Observed&) {
             world.AttachReceiver();
             // What was acknowledged is gone, the next is next, up to the one
             // that the sender then sends.
             std::optional<uint64_t> last;
             while (last != world.sent) {
               const auto view = world.receiver->Receive(kPatience);
               ASSERT_TRUE(view.ok()) << view.status();
               const auto number = NumberOf(view->text());
               ASSERT_TRUE(number.has_value());
               EXPECT_LE(*number, last.has_value() ? *last + 1 : 9);
               EXPECT_TRUE(!last.has_value() || *number == *last + 1);
               last = number;
             }
             EXPECT_EQ(world.other->Wait(), 0);
           }},
      {.name = "ReceiveFromAnEmptyRing",
       .arrange = [](World& world) { world.AttachSender(); },
       .prepare = attach,
       .operate =
           [](World& world) { const auto view = world.receiver->Receive(); },
       .wake =
           [](World& world) {
             world.Send();
             world.Send();
           },
       .check =
           [](World& world, const KillPoint& point, Observed& observed) {
             if (point.woken) {
               CheckReceived(world, point, observed, 1);
             } else {
               world.AttachReceiver();
             }
             world.Send();
             world.Receive();
           }},
      {.name = "AttachAsReceiver",
       .arrange =
           [](World& world) {
             world.AttachSender();
             for (int i = 0; i < 3; ++i) world.Send();
             world.AttachReceiver();
             world.Receive();
             // The second one is handed out, and not acknowledged.
             const auto view = world.receiver->Receive(kNow);
             world.receiver->Leave();
           },
       .operate = attach,
       .check =
           [](World& world, const KillPoint&, Observed&) {
             world.AttachReceiver();
             for (const bool again : {true, false}) {
               const auto view = world.receiver->Receive(kPatience);
               ASSERT_TRUE(view.ok()) << view.status();
               EXPECT_EQ(NumberOf(view->text()), again ? 1u : 2u);
               EXPECT_EQ(view->redelivered(), again);
             }
           }},
      {.name = "LeaveAsReceiver",
       .arrange = three,
       .prepare =
           [](World& world) {
             world.AttachReceiver();
             world.Receive();
           },
       .operate = [](World& world) { world.receiver->Leave(); },
       .check =
           [](World& world, const KillPoint&, Observed&) {
             world.received = 1;
             world.AttachReceiver();
             world.Receive();
             world.Receive();
           }},
      {.name = "CloseAsReceiver",
       .arrange =
           [](World& world) {
             world.AttachSender();
             world.Fill();
           },
       .prepare = attach,
       .operate = [](World& world) { world.receiver->Close(); },
       .check =
           [](World& world, const KillPoint& point, Observed& observed) {
             const absl::Status status =
                 world.sender->Send("more", absl::Milliseconds(1));
             EXPECT_TRUE(absl::IsUnavailable(status) ||
                         absl::IsDeadlineExceeded(status))
                 << status;
             observed.Effect(point, absl::IsUnavailable(status));
           }},
      {.name = "CreateRing",
       .operate = [](World&) { (void)CreateRing(); },
       .check = [](World&, const KillPoint&,
                   Observed&) { EXPECT_TRUE(CreateRing().ok()); }},
  };
}

std::vector<Operation> Operations() {
  std::vector<Operation> all = Senders();
  for (Operation& operation : Receivers()) all.push_back(std::move(operation));
  return all;
}

class RingKillTest : public ::testing::TestWithParam<Operation> {};

INSTANTIATE_TEST_SUITE_P(Operations, RingKillTest,
                         ::testing::ValuesIn(Operations()),
                         [](const auto& info) { return info.param.name; });

TEST_P(RingKillTest, Survived) {
  testing::CheckSurvival(GetParam(), kRingTick);
}

// What both ends of the soak write down where it survives them.
struct Log {
  std::atomic<uint64_t> tried;     // the last number that was given to Send
  std::atomic<uint64_t> returned;  // and the last one for which it returned OK
  std::atomic<uint64_t> received;  // the last one that was looked at
  std::atomic<uint64_t> again;     // how many were redelivered
  std::atomic<uint64_t> error;     // what was wrong; 0: nothing
};

int SoakSend(int fd, Log& log) {
  absl::StatusOr<RingSender> sender = RingSender::FromFd(Dup(fd));
  if (!sender.ok()) return 1;
  std::minstd_rand random(static_cast<unsigned>(getpid()));
  while (true) {
    // What the one before may have sent or not is not sent again.
    const uint64_t n = log.tried.load() + 1;
    log.tried.store(n);
    const size_t words = random() % 16 == 0 ? random() % 200 : random() % 12;
    const absl::Status status = sender->Send(Message(n, words), kPatience);
    if (!status.ok()) {
      log.error.store(100 + static_cast<uint64_t>(status.code()));
      return 1;
    }
    log.returned.store(n);
  }
}

int SoakReceive(int fd, Log& log) {
  absl::StatusOr<RingReceiver> receiver = RingReceiver::FromFd(Dup(fd));
  if (!receiver.ok()) return 1;
  bool first = true;
  while (true) {
    const absl::StatusOr<View> view = receiver->Receive(kPatience);
    if (absl::IsUnavailable(view.status())) {
      // The sender is dead. The next one will be there soon.
      sched_yield();
      continue;
    }
    const auto fail = [&](uint64_t error) {
      log.error.store(error);
      return 1;
    };
    if (!view.ok())
      return fail(200 + static_cast<uint64_t>(view.status().code()));
    const uint64_t last = log.received.load();
    const uint64_t n = NumberOf(view->text()).value_or(0);
    if (n == 0) return fail(1);  // torn
    if (n <= last && !(first && n == last && view->redelivered())) {
      return fail(2);  // twice, though it had been acknowledged
    }
    // Each killed sender leaves at most one number that it had tried and that
    // did not arrive.
    if (n > last + 1) log.again.fetch_add((n - last - 1) << 32);
    if (view->redelivered()) log.again.fetch_add(1);
    log.received.store(n);
    first = false;
  }
}

TEST(RingSoakTest, EitherEndIsKilledAtRandom) {
  const unsigned seed = std::random_device()();
  printf("seed %u\n", seed);
  std::mt19937 random(seed);
  void* const page = mmap(nullptr, kPage, PROT_READ | PROT_WRITE,
                          MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(page, MAP_FAILED);
  Log& log = *new (page) Log();
  const UniqueFd fd = *CreateRing({.capacity_bytes = 2 * kPage});
  std::optional<Child> sender, receiver;
  const auto start_sender = [&] {
    sender.emplace(Child::Fork([&] { return SoakSend(fd.get(), log); }));
  };
  const auto start_receiver = [&] {
    receiver.emplace(Child::Fork([&] { return SoakReceive(fd.get(), log); }));
  };
  start_sender();
  start_receiver();
  uint64_t senders_killed = 0, receivers_killed = 0;
  const absl::Time end = absl::Now() + absl::Seconds(8);
  while (absl::Now() < end && log.error.load() == 0) {
    // A moment, so that they are killed in the midst of it.
    absl::SleepFor(absl::Microseconds(random() % 6000));
    const bool kill_sender = random() % 2 == 0;
    const bool kill_both = random() % 8 == 0;
    if (kill_sender || kill_both) {
      kill(sender->pid(), SIGKILL);
      EXPECT_EQ(sender->Wait(), -SIGKILL);
      ++senders_killed;
      sender.reset();
      start_sender();
    }
    if (!kill_sender || kill_both) {
      kill(receiver->pid(), SIGKILL);
      EXPECT_EQ(receiver->Wait(), -SIGKILL);
      ++receivers_killed;
      receiver.reset();
      start_receiver();
    }
  }
  // What is there now arrives.
  const uint64_t goal = log.returned.load();
  const absl::Time patience = absl::Now() + kPatience;
  while (log.received.load() < goal && log.error.load() == 0 &&
         absl::Now() < patience) {
    absl::SleepFor(absl::Milliseconds(1));
  }
  EXPECT_EQ(log.error.load(), 0u);
  EXPECT_GE(log.received.load(), goal);
  const uint64_t missing = log.again.load() >> 32;
  const uint64_t again = log.again.load() & 0xffffffff;
  printf(
      "%lu senders and %lu receivers killed; %lu messages received, %lu "
      "never committed, %lu redelivered\n",
      static_cast<unsigned long>(senders_killed),
      static_cast<unsigned long>(receivers_killed),
      static_cast<unsigned long>(log.received.load()),
      static_cast<unsigned long>(missing), static_cast<unsigned long>(again));
  EXPECT_GT(senders_killed, 20u);
  EXPECT_GT(receivers_killed, 20u);
  EXPECT_LE(missing, senders_killed);
  EXPECT_LE(again, receivers_killed);
  EXPECT_GT(log.received.load(), senders_killed);
  munmap(page, kPage);
}

}  // namespace
}  // namespace ipc::pipe

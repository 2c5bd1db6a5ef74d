// A bounded queue of messages in shared memory, for many senders and many
// receivers in different processes, any of which may be killed at any time.
//
// Example:
//
//   absl::StatusOr<Queue> queue = Queue::CreateAnonymous({.slots = 256});
//   // Hand a descriptor to a child (it is close-on-exec until granted), or
//   // just fork: a child may go on using the Queue object of its parent.
//   ... queue->fd() ...
//   // In the child:
//   absl::StatusOr<Queue> queue = Queue::FromFd(UniqueFd(fd));
//   while (true) {
//     absl::StatusOr<std::string> task = queue->Receive();
//     if (absl::IsOutOfRange(task.status())) break;  // closed and drained
//     ...
//   }
//   // In the parent:
//   absl::Status status = queue->Send("work", absl::Seconds(1));
//   ...
//   queue->CloseForSend();
//
// Order: messages of one sending thread are received in the order they were
// sent; those of different ones in the order in which their slots were claimed.
// A message that is delivered again (below) comes before all others.
//
// Delivery: a Send that returned OK is delivered at most once, and lost only in
// the process that had taken it: one killed after its Receive had committed. A
// sender killed within Send has either sent the whole message or nothing. A
// receiver killed within Receive, before it commits, leaves the message for
// another one.
//
// The dead: who is dead is known from the kernel alone (see
// ipc/base/participants.h), and whoever waits looks after it: at the latest
// 2 * kParkTick after a death the slot it held is free again. A process that is
// merely stopped within a Send keeps its slot and holds up what comes behind
// it, for as long as it is stopped.
//
// Cost: no system call while nobody waits. A waiter polls for about 20 us (not
// on the CPU where its peer ran last), then sleeps on a futex. Polling by
// TryReceive or TrySend alone checks for the dead as well, once per kParkTick.
//
// Trust: a peer that writes rubbish into the segment can make calls fail, wait
// for their whole time-out, or deliver rubbish of at most max_message_bytes(),
// but not access other memory or loop for ever.
//
// Errors, for all calls:
//   Aborted             this process was declared dead: it closed descriptors
//                       that it does not own, or a peer writes rubbish. The
//                       call had no effect; the next one attaches anew.
//   DataLoss            the segment is damaged; make a new queue.
//   ResourceExhausted   no participant is free (in the first call of a forked
//                       child; see Options::participants).
// and those named at each call.
//
// Thread safety: a Queue may be used by many threads at a time, but for moving
// and destroying it. Not in a signal handler. Calls are not cancellation points
// for pthread_cancel.
//
// Lifetime: the segment lives for as long as a process has it open. A Queue
// that was moved from may only be destroyed or assigned to.
#ifndef IPC_MQUEUE_QUEUE_H_
#define IPC_MQUEUE_QUEUE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ipc/base/unique_fd.h"

namespace ipc {
class Mapping;
}

namespace ipc::mqueue {

struct Geometry;

// What Send does when the queue is full.
enum class FullPolicy : uint32_t {
  kBlock = 0,  // waits for a receiver, up to its time-out
  kFail = 1,   // ResourceExhausted at once, as TrySend
};

struct Options {
  // How many messages the queue holds; rounded up to a power of two, at most
  // 2^24. Each takes message_bytes + 16, rounded up to 64, allocated at once.
  uint64_t slots = 1024;
  // The longest message, in bytes, at most 2^24. With 48, a message and its
  // slot share one cache line.
  uint64_t message_bytes = 240;
  FullPolicy full_policy = FullPolicy::kBlock;
  // How many Queue objects, in all processes, may be attached at a time; at
  // most 512. Eight bytes each, and a system call for each one attached at
  // every tick of a sleeping waiter.
  uint64_t participants = 128;
};

struct Stats {
  uint64_t sent = 0;      // messages whose Send has committed
  uint64_t received = 0;  // messages whose Receive has committed
  uint64_t pending = 0;   // messages waiting to be received
  // Since the queue was created; may miss one when a reaper itself is killed.
  uint64_t redelivered =
      0;                 // taken again after a receiver died or gave it back
  uint64_t skipped = 0;  // slots left unfinished by senders that died
  uint64_t reaped = 0;   // participants found dead
};

class Queue {
 public:
  // The longest that a waiter sleeps before it looks for the dead.
  static constexpr absl::Duration kParkTick = absl::Milliseconds(50);

  // A new queue in anonymous memory, complete before anybody else can see it.
  // InvalidArgument if an option is out of range, ResourceExhausted if there is
  // not enough memory.
  static absl::StatusOr<Queue> CreateAnonymous(const Options& options = {});
  // Attaches to the queue behind `fd`, and owns it. InvalidArgument if it is
  // not a queue, FailedPrecondition if it is one of another version, DataLoss
  // if its geometry is damaged, ResourceExhausted if all participants are in
  // use by living processes.
  static absl::StatusOr<Queue> FromFd(UniqueFd fd);

  Queue(Queue&&) noexcept;
  Queue& operator=(Queue&&) noexcept;
  // Detaches. Messages stay in the queue.
  ~Queue();

  // The descriptor of the segment, for handing a duplicate to another process.
  // Stays owned; close-on-exec.
  int fd() const;

  // Sends a copy of `message`, which may be empty. InvalidArgument if it is
  // longer than max_message_bytes(), FailedPrecondition if the queue is closed
  // for send, DeadlineExceeded if it was full up to `timeout`
  // (ResourceExhausted instead with FullPolicy::kFail).
  absl::Status Send(absl::Span<const std::byte> message,
                    absl::Duration timeout = absl::InfiniteDuration());
  absl::Status Send(absl::string_view message,
                    absl::Duration timeout = absl::InfiniteDuration());
  // The same without waiting: ResourceExhausted if the queue is full.
  absl::Status TrySend(absl::Span<const std::byte> message);
  absl::Status TrySend(absl::string_view message);

  // The next message. DeadlineExceeded if there was none up to `timeout`,
  // OutOfRange if the queue is closed for send and drained.
  absl::StatusOr<std::string> Receive(
      absl::Duration timeout = absl::InfiniteDuration());
  // The same into `buffer`; returns the length. InvalidArgument if the message
  // is longer than the buffer: it then stays in the queue, to be the next one.
  absl::StatusOr<size_t> ReceiveInto(
      absl::Span<std::byte> buffer,
      absl::Duration timeout = absl::InfiniteDuration());
  // nullopt if there is no message now. OutOfRange as in Receive.
  absl::StatusOr<std::optional<std::string>> TryReceive();

  // From now on Send fails, also for those waiting in it, and once the queue is
  // empty, so does Receive. For all processes, and for good. Idempotent.
  absl::Status CloseForSend();

  // Messages in the queue, including those being sent; out of date at once.
  size_t ApproximateSize() const;
  // How many messages the queue holds: Options::slots, rounded up.
  size_t capacity() const;
  size_t max_message_bytes() const;
  // Looks at every slot; exact while nobody sends or receives.
  Stats stats() const;

 private:
  friend class QueueTestPeer;
  struct Core;

  explicit Queue(std::unique_ptr<Core> core);

  static absl::StatusOr<Queue> Create(const Options& options, int lap_bits);
  static absl::StatusOr<Queue> Attach(UniqueFd fd, Mapping mapping,
                                      const Geometry& geometry);

  std::unique_ptr<Core> core_;
};

}  // namespace ipc::mqueue

#endif  // IPC_MQUEUE_QUEUE_H_

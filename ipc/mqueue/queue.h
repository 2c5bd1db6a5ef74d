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
// Order: higher priorities first. Within one, messages of one sending thread
// are received in the order they were sent; those of different ones in the
// order in which their slots were claimed. A message that is delivered again
// (below) comes before all others of its priority, or of all.
//
// Delivery, by Options::delivery:
// - kAutoAck: a Send that returned OK is delivered at most once, and lost only
//   in the process that had taken it: one killed after its receive had
//   committed.
// - kExplicitAck: at least once. A message is done with when its receiver says
//   so (Message::Ack; after a plain Receive, TaskDone). If the receiver dies
//   before, or drops the Message, it is delivered again, and redelivered() says
//   so. Nobody can promise exactly once across the death of a receiver.
// In either: a sender killed within Send has sent the whole message or nothing;
// a receiver killed within Receive, before that commits, leaves the message for
// another one.
//
// The dead: who is dead is known from the kernel alone (see
// ipc/base/participants.h). Each Queue object in use looks for them once per
// kParkTick: whenever it has to wait, when a call that does not wait finds
// nothing, and, since a receiver may find a message each time, at every 64th
// message, with kExplicitAck at every fourth. So where anybody waits or polls,
// what a dead one held is free again, or comes again, 2 * kParkTick after its
// death at the latest (of short calls one after the other; a queue that nobody
// uses repairs nothing); where all receivers are too busy to wait, after so
// many more messages. A process that is merely stopped within a Send keeps its
// slot and holds up what comes behind it, for as long as it is stopped.
//
// Large messages: those of more than 240 bytes lie in the arena of the segment,
// in runs of blocks; see message.h for writing and reading them there. A Send
// waits for such memory as it does for a slot. What was lent or received must
// be given back (by its destructor) or the arena runs dry.
//
// Cost: no system call while nobody waits, but for the look for the dead: once
// per kParkTick, one for each participant attached. And one for each message
// that is sent while somebody polls a descriptor (EnablePolling) or sleeps. A
// waiter polls for about 40 us (not on the CPU where its peer ran last, and
// less where that is mostly in vain), then sleeps on a futex.
// tools/bench/README.md has figures.
//
// Trust: a peer that writes rubbish into the segment can make calls fail, wait
// for their whole time-out, or deliver rubbish of at most max_message_bytes(),
// but not access other memory or loop for ever. An anonymous queue cannot
// shrink. One with a name cannot be kept from it: another process of this user
// that truncates the file kills whoever uses it then by SIGBUS, as it could by
// any signal.
//
// Errors, for all calls:
//   Aborted             this process was declared dead: it closed descriptors
//                       that it does not own, or a peer writes rubbish. The
//                       call had no effect; the next one attaches anew.
//   PermissionDenied    this Queue was opened for the other Role.
//   DataLoss            the segment is damaged; make a new queue.
//   ResourceExhausted   no participant is free (in the first call of a forked
//                       child; see Options::participants).
// and those named at each call.
//
// Thread safety: a Queue may be used by many threads at a time, but for moving
// and destroying it. Not in a signal handler. Calls are not cancellation points
// for pthread_cancel.
//
// Lifetime: the segment lives for as long as a process has it open; a name
// stays until Unlink, also where all users were killed
// (shm::Segment::RemoveStale does not touch queues). A Queue that was moved
// from may only be destroyed or assigned to.
#ifndef IPC_MQUEUE_QUEUE_H_
#define IPC_MQUEUE_QUEUE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ipc/base/unique_fd.h"
#include "ipc/base/waitable.h"
#include "ipc/mqueue/message.h"
#include "ipc/mqueue/policy.h"

namespace ipc {
class Mapping;
}

namespace ipc::mqueue {

struct Geometry;

// What a Queue object may be used for. A guard against mistakes: the kernel
// knows no such difference, since to receive is to write, too.
enum class Role { kSendAndReceive, kSend, kReceive };

struct Options {
  // How many messages the queue holds, of each priority; rounded up to a power
  // of two, at most 2^24. Each takes message_bytes (or 240, if that is less) +
  // 16, rounded up to 64, allocated at once.
  uint64_t slots = 1024;
  // The longest message, in bytes, at most 2^40. With 48, a message and its
  // slot share one cache line. With more than 240 the queue has an arena.
  uint64_t message_bytes = 240;
  // Messages have priorities from 0 up to this, exclusive; at most 8.
  uint64_t priorities = 1;
  FullPolicy full_policy = FullPolicy::kBlock;
  Delivery delivery = Delivery::kAutoAck;
  // The arena, if there is one, allocated at once. 0: twice what the slots can
  // hold of the longest messages, but no more than 64 MiB, unless that is less
  // than four messages.
  uint64_t arena_bytes = 0;
  // What a message takes of the arena is a multiple of this; rounded up to 64,
  // at most 2^30. One that is as large as the usual message is fastest. 0: the
  // longest message, or about a sixteenth of it if that is more than 4096.
  uint64_t block_bytes = 0;
  // How many Queue objects, in all processes, may be attached at a time; at
  // most 512. Eight bytes each, and a system call for each one attached at
  // every tick of a sleeping waiter.
  uint64_t participants = 128;
};

struct SendOptions {
  absl::Duration timeout = absl::InfiniteDuration();
  // Less than Options::priorities; the higher, the sooner.
  uint32_t priority = 0;
  // Handed to the receiver, as Message::type.
  uint16_t type = 0;
};

// Since the queue was created, over all processes. A message that is just being
// sent counts as sent, one that is just being received as received. Counts of
// what reapers do may miss one when a reaper itself is killed.
struct Stats {
  uint64_t sent = 0;      // messages whose Send has committed
  uint64_t received = 0;  // messages done with
  uint64_t pending = 0;   // messages waiting to be received
  uint64_t unacked = 0;   // with kExplicitAck: received and not done with
  uint64_t dropped = 0;   // by the full policy; if sent, not in `received`
  // Taken again after a receiver died or gave it back.
  uint64_t redelivered = 0;
  uint64_t skipped = 0;  // slots left unfinished by senders that died
  uint64_t reaped = 0;   // participants found dead
  // The most that one priority has held; sampled at every eighth message, so
  // that it may be up to seven higher.
  uint64_t high_water = 0;
  // The time that senders and Lend have waited for room, of all added up;
  // counted when the wait is over.
  absl::Duration blocked;
};

class Queue final : public Waitable {
 public:
  // How long a waiter sleeps at most, and how often it looks for the dead.
  static constexpr absl::Duration kParkTick = absl::Milliseconds(50);

  // A new queue in anonymous memory, complete before anybody else can see it.
  // InvalidArgument if an option is out of range, ResourceExhausted if there is
  // not enough memory.
  static absl::StatusOr<Queue> CreateAnonymous(const Options& options = {});
  // The same under a name that processes of this user can Open, until Unlink;
  // see ipc/base/named_memory.h for names. AlreadyExists if it is taken,
  // InvalidArgument if it is none.
  static absl::StatusOr<Queue> Create(absl::string_view name,
                                      const Options& options = {});
  // Attaches to the queue behind `fd`, and owns it. InvalidArgument if it is
  // not a queue, FailedPrecondition if it is one of another version, DataLoss
  // if its geometry is damaged, ResourceExhausted if all participants are in
  // use by living processes.
  static absl::StatusOr<Queue> FromFd(UniqueFd fd,
                                      Role role = Role::kSendAndReceive);
  // The same by name. NotFound if there is none, PermissionDenied if it is
  // another user's or open to others.
  static absl::StatusOr<Queue> Open(absl::string_view name,
                                    Role role = Role::kSendAndReceive);
  // Removes the name; the queue lives for as long as somebody has it open.
  // NotFound if there is none.
  static absl::Status Unlink(absl::string_view name);

  Queue(Queue&&) noexcept;
  Queue& operator=(Queue&&) noexcept;
  // Detaches. Messages stay in the queue; what a plain Receive has taken and no
  // TaskDone has acknowledged is delivered again.
  ~Queue() override;

  // The descriptor of the segment, for handing a duplicate to another process.
  // Stays owned; close-on-exec.
  int fd() const;

  // Sends a copy of `message`, which may be empty. InvalidArgument if it is
  // longer than max_message_bytes() or the priority too high,
  // FailedPrecondition if the queue is closed for send, DeadlineExceeded if it
  // was full up to the time-out (with another FullPolicy, see there).
  absl::Status Send(absl::Span<const std::byte> message,
                    absl::Duration timeout = absl::InfiniteDuration());
  absl::Status Send(absl::string_view message,
                    absl::Duration timeout = absl::InfiniteDuration());
  absl::Status Send(absl::Span<const std::byte> message,
                    const SendOptions& options);
  absl::Status Send(absl::string_view message, const SendOptions& options);
  // The same without waiting: ResourceExhausted if the queue is full.
  absl::Status TrySend(absl::Span<const std::byte> message,
                       const SendOptions& options = {});
  absl::Status TrySend(absl::string_view message,
                       const SendOptions& options = {});

  // Memory to write a message of `bytes` in. If the arena has no room, Lend
  // does as Options::full_policy says: waits, and then DeadlineExceeded; or
  // ResourceExhausted at once, also with kDropNewest, as there is no message
  // yet to be dropped; or drops the oldest messages, of priority 0 only, as the
  // loan has none yet. TryLoan never waits, but drops as well. Else as Send.
  absl::StatusOr<Loan> TryLoan(size_t bytes);
  absl::StatusOr<Loan> Lend(size_t bytes,
                            absl::Duration timeout = absl::InfiniteDuration());
  // Sends what was written there; as Send. Unless OK, `loan` stays the
  // caller's.
  absl::Status Send(Loan&& loan, const SendOptions& options = {});

  // The next message, copied. DeadlineExceeded if there was none up to
  // `timeout`. OutOfRange if the queue is closed for send and no message is
  // left that could still be received here: those that other Queue objects are
  // just receiving, or have received with kExplicitAck and not acknowledged,
  // are waited for; not those that this object itself has, which nobody but
  // the caller can bring back. With kExplicitAck a message is to be
  // acknowledged by TaskDone.
  absl::StatusOr<std::string> Receive(
      absl::Duration timeout = absl::InfiniteDuration());
  // The same into `buffer`; returns the length. InvalidArgument if the message
  // is longer than the buffer: it then stays in the queue, to be the next one.
  absl::StatusOr<size_t> ReceiveInto(
      absl::Span<std::byte> buffer,
      absl::Duration timeout = absl::InfiniteDuration());
  // nullopt if there is no message now. OutOfRange as in Receive.
  absl::StatusOr<std::optional<std::string>> TryReceive();
  // The same in place, with what its sender said about it.
  absl::StatusOr<Message> ReceiveMessage(
      absl::Duration timeout = absl::InfiniteDuration());
  absl::StatusOr<std::optional<Message>> TryReceiveMessage();
  // As many as there are, at most `max`; waits for the first one.
  // InvalidArgument if `max` is 0. An error comes after what could be received.
  absl::StatusOr<std::vector<Message>> ReceiveBatch(
      size_t max, absl::Duration timeout = absl::InfiniteDuration());

  // Acknowledges the oldest message that Receive, ReceiveInto or TryReceive of
  // this object has taken, in this process. FailedPrecondition if there is
  // none, or with kAutoAck. If the message has been taken away, Aborted.
  absl::Status TaskDone();
  // Waits until every message whose Send had returned before is done with:
  // received, and with kExplicitAck acknowledged. The death of a receiver does
  // not count. DeadlineExceeded.
  absl::Status Join(absl::Duration timeout = absl::InfiniteDuration());

  // For use with poll and epoll: makes poll_fd() a descriptor that polls
  // readable when there may be a message, and at every kParkTick, so that the
  // dead are noticed. Then call TryReceive or TryReceiveMessage until it
  // returns nullopt, which makes it unreadable. To be called once, by one
  // thread; not inherited by a forked child. It takes an inotify instance of
  // the user's.
  absl::Status EnablePolling();
  // -1 before EnablePolling. Valid as long as this object.
  int poll_fd() const override;

  // From now on Send fails, also for those waiting in it, and once the queue is
  // empty, so does Receive. For all processes, and for good. Idempotent.
  absl::Status CloseForSend();

  // Messages in the queue, including those being sent; out of date at once.
  size_t ApproximateSize() const;
  // How many messages the queue holds of each priority: Options::slots, rounded
  // up.
  size_t capacity() const;
  size_t max_message_bytes() const;
  // For TypedQueue: what its messages are; 0: bytes.
  // Without a name, anonymous.
  static absl::StatusOr<Queue> CreateTyped(
      std::optional<absl::string_view> name, const Options& options,
      uint64_t type_id);
  uint64_t type_id() const;
  // Exact while nobody sends or receives. Reads the header alone, and so
  // disturbs nobody; but with kExplicitAck also the 64 bytes that each block of
  // the arena has beside its data, and, until they have been received or used
  // again, all slots if the dead have left some half done.
  Stats stats() const;

 private:
  friend class QueueTestPeer;

  explicit Queue(std::unique_ptr<QueueCore> core);

  static absl::StatusOr<Queue> CreateWith(
      const Options& options, int lap_bits, uint64_t type_id,
      std::optional<absl::string_view> name);
  static absl::StatusOr<Queue> Attach(UniqueFd fd, Mapping mapping,
                                      const Geometry& geometry, Role role);

  std::unique_ptr<QueueCore> core_;
};

}  // namespace ipc::mqueue

#endif  // IPC_MQUEUE_QUEUE_H_

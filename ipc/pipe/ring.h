// A ring in shared memory, through which one process sends messages to another
// one without copying and without system calls.
//
// Example:
//
//   absl::StatusOr<UniqueFd> ring = CreateRing({.capacity_bytes = 1 << 20});
//   ... grant the descriptor to two processes. In one of them:
//   absl::StatusOr<RingSender> sender = RingSender::FromFd(std::move(fd));
//   absl::Status status = sender->Send("small");
//   absl::StatusOr<Reservation> frame = sender->Reserve(100'000);
//   Render(frame->span());  // in place
//   status = frame->Commit();
//   sender->CloseForSend();
//   ... and in the other one:
//   auto receiver = RingReceiver::FromFd(std::move(fd));
//   while (true) {
//     absl::StatusOr<View> view = receiver->Receive();
//     if (absl::IsOutOfRange(view.status())) break;  // closed and drained
//     if (!view.ok()) return view.status();
//     Show(view->data());
//   }  // the end of the View acknowledges
//
// When to use it: for one sender and one receiver, and a stream of messages of
// any size; it is the fastest channel there is here. Several of either need a
// mqueue::Queue; a peer that is not written with this library, a Connection.
//
// One of each: a ring has at most one sender and one receiver at a time, which
// the kernel enforces by a file lock (ipc/base/participants.h). A second one is
// refused, for as long as the first one lives.
//
// Delivery: in order, at least once. A Commit (or Send) that returned OK has
// handed over the whole message, which then outlives its sender; one that was
// killed before has handed over nothing. A message is done with when its View
// is destroyed. If the receiver dies or leaves before, the next receiver of
// this ring is given it again: View::redelivered() then says that it had been
// handed out. What was done about it nobody knows, perhaps all of it and
// perhaps nothing; nobody can promise exactly once across the death of a
// receiver. A message that no receiver has been handed is never marked, one
// that was acknowledged never comes again.
//
// The end:
// - CloseForSend or ~RingSender: the receiver gets what is left, then
//   OutOfRange. It is final: nobody can attach as a sender any more.
// - The sender dies: the receiver gets what is left, then Unavailable, within
//   about kTick. Another sender may attach, and the receiver goes on.
// - Leave: as if this end had not been attached. Another one may attach.
// - Close or ~RingReceiver: the sender gets Unavailable, unless all that it
//   sends was received before; what was not received is lost. Final, too.
// - The receiver dies, or never comes: the sender fills the ring, and waits for
//   another receiver up to its time-out.
// Who is dead is known from the kernel alone; one that is stopped or slow is
// not taken for it. Whatever an end was doing when it was killed, the other one
// goes on, and so does its successor: there is nothing to repair.
//
// Back-pressure: a sender waits while the ring is full. It may lag in knowing
// what is free, by an eighth of the ring, as long as the receiver is at work or
// the sender need not wait.
//
// Cost: no system call while nobody sleeps, no fence, and two cache lines from
// one core to the other for a message that is waited for. Who waits polls for
// about 40 us (on the CPU of its peer: yields), then sleeps on a futex, and
// looks at its peer's life once in a kTick. tools/bench/README.md has figures.
//
// Trust: a peer that writes rubbish into the segment can make calls fail with
// DataLoss, wait for their whole time-out, or return rubbish, of at most
// max_message_bytes(), which changes while it is read: copy what you check. It
// cannot make this process access other memory, loop for ever or meet SIGBUS.
//
// Errors, for all calls:
//   FailedPrecondition  this end was closed, or is the parent's (see Fork), or
//                       the only Reservation is out.
//   DataLoss            the segment is damaged; create a new ring.
// and those named at each call.
//
// Thread safety: none. Each end is for one thread at a time, with its
// Reservation or Views; the two ends may be in one process. Not in a signal
// handler.
//
// Lifetime: Reservations, Views and Batches must not outlive the end they came
// from, but may outlive its being moved, closed or left. What was moved from
// may only be destroyed or assigned to. The segment lives for as long as
// anybody has it open.
//
// Fork: a child inherits no end. Objects of its parent's fail there with
// FailedPrecondition, and do nothing when destroyed; the parent's are not
// affected. It may attach to an end that nobody has, by FromFd with a duplicate
// of fd(). Raw clone(2) and vfork(2): see ipc/base/participants.h. A process
// that closes descriptors it does not own loses its end to the next one.
//
// Sources: two positions that only grow, each written by one side, are from
// Lamport, "Proving the Correctness of Multiprocess Programs" (1977); that each
// side caches the other's, from Rigtorp's SPSCQueue and, before it,
// "MCRingBuffer" (Lee, Bu, Chandranmenon 2010), which also publishes in
// batches; the double mapping, from what is known as the magic or virtual ring
// buffer. What the segment looks like is in ring_layout.h.
#ifndef IPC_PIPE_RING_H_
#define IPC_PIPE_RING_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ipc/base/unique_fd.h"
#include "ipc/pipe/ring_core.h"

namespace ipc::pipe {

struct RingOptions {
  // How many bytes of messages the ring holds, each with 8 bytes more and
  // rounded up to a multiple of 8. Rounded up to a power of two and to a page;
  // allocated at once; at most 4 GiB. A ring that fits a cache is fastest.
  uint64_t capacity_bytes = 1 << 20;
};

// A new ring in anonymous memory of a sealed size, to which nobody is attached.
// InvalidArgument if it is to be too large, ResourceExhausted if there is not
// enough memory.
absl::StatusOr<UniqueFd> CreateRing(const RingOptions& options = {});

// The longest that a waiter sleeps before it looks whether its peer lives.
inline constexpr absl::Duration kRingTick = internal::RingEnd::kTick;

// Memory of the ring to write one message in. Sends nothing unless committed.
// Move-only.
class Reservation {
 public:
  Reservation(Reservation&& other) noexcept
      : core_(std::exchange(other.core_, nullptr)),
        position_(other.position_),
        size_(other.size_),
        type_(other.type_) {}
  Reservation& operator=(Reservation&& other) noexcept {
    std::swap(core_, other.core_);
    std::swap(position_, other.position_);
    std::swap(size_, other.size_);
    std::swap(type_, other.type_);
    return *this;
  }
  ~Reservation() {
    if (core_ != nullptr) core_->Abort();
  }

  // What was reserved, contiguous, aligned to 8 bytes, or to 64 if it is 512 or
  // more. It contains what was there before. Not after Commit or Stage.
  absl::Span<std::byte> span() const {
    return {core_->At(position_) + internal::kRecordHeader, size_};
  }
  // Handed to the receiver, as View::type; 0 if it is not set.
  void set_type(uint32_t type) { type_ = type; }

  // Sends the message, or its first `bytes`. InvalidArgument if that is more
  // than was reserved: then it may be tried again. Unavailable if the receiver
  // has closed the ring; FailedPrecondition if it was committed already.
  absl::Status Commit() { return Commit(size_); }
  absl::Status Commit(size_t bytes) {
    internal::SenderCore* const core = core_;
    if (!StageFirst(bytes)) [[unlikely]]
      return NotStaged(bytes);
    return core->Publish();
  }
  // The same, but the message is sent with the next one that is committed, by
  // RingSender::Publish, when the sender has to wait for room or when it
  // closes. So a batch costs the receiver's attention once.
  absl::Status Stage() { return Stage(size_); }
  absl::Status Stage(size_t bytes) {
    if (!StageFirst(bytes)) [[unlikely]]
      return NotStaged(bytes);
    return absl::OkStatus();
  }

 private:
  friend class RingSender;

  Reservation(internal::SenderCore* core, uint64_t position, size_t size)
      : core_(core), position_(position), size_(size) {}

  bool StageFirst(size_t bytes) {
    if (core_ == nullptr || bytes > size_ || !core_->IsReserved()) return false;
    std::exchange(core_, nullptr)
        ->Stage(position_, static_cast<uint32_t>(bytes), type_);
    return true;
  }
  absl::Status NotStaged(size_t bytes) const;

  internal::SenderCore* core_;  // null once committed
  uint64_t position_;
  size_t size_;
  uint32_t type_ = 0;
};

// The end to send by. Move-only.
class RingSender {
 public:
  // Creates a ring and attaches to it. For errors, see CreateRing.
  static absl::StatusOr<RingSender> CreateAnonymous(
      const RingOptions& options = {});
  // Attaches to the ring behind `fd`, which it owns from now on; close-on-exec
  // is left as it is. FailedPrecondition if a sender is attached and alive, if
  // one has closed the ring, or if another version of Parley made it;
  // InvalidArgument if it is not a ring.
  static absl::StatusOr<RingSender> FromFd(UniqueFd fd);

  RingSender(RingSender&&) noexcept = default;
  RingSender& operator=(RingSender&&) noexcept = default;
  // Closes the ring for send.
  ~RingSender() = default;

  // Room for a message of so many bytes, which may be 0, contiguous in the
  // ring. One at a time. Waits while the ring is full: DeadlineExceeded, or
  // with a time-out of zero at once ResourceExhausted. InvalidArgument if it is
  // longer than max_message_bytes(); Unavailable if the receiver has closed.
  absl::StatusOr<Reservation> Reserve(
      size_t bytes, absl::Duration timeout = absl::InfiniteDuration()) {
    uint64_t position;
    if (!core_->TryReserve(bytes, &position)) [[unlikely]] {
      if (absl::Status status = core_->Reserve(bytes, timeout, &position);
          !status.ok()) {
        return status;
      }
    }
    return Reservation(core_.get(), position, bytes);
  }

  // Sends a copy of `message`. For errors, see Reserve.
  absl::Status Send(absl::Span<const std::byte> message,
                    absl::Duration timeout = absl::InfiniteDuration(),
                    uint32_t type = 0);
  absl::Status Send(absl::string_view message,
                    absl::Duration timeout = absl::InfiniteDuration(),
                    uint32_t type = 0);
  // Sends copies of all, and publishes them at once, or in as few parts as
  // there is room for. Returns how many were sent: fewer than all if an error
  // came after the first one, which the next call then meets.
  absl::StatusOr<size_t> SendBatch(
      absl::Span<const absl::string_view> messages,
      absl::Duration timeout = absl::InfiniteDuration());

  // Sends what is staged.
  absl::Status Publish() { return core_->PublishStaged(); }

  // After what was sent the receiver gets OutOfRange. Idempotent.
  void CloseForSend() { core_->Close(); }
  // Gives the end up, for another process to attach to it.
  void Leave() { core_->Leave(); }

  // The longest message: capacity_bytes() - 64.
  size_t max_message_bytes() const { return core_->max_message(); }
  size_t capacity_bytes() const { return core_->capacity(); }
  // To be duplicated and granted to the receiver. Stays owned; close-on-exec
  // unless it was handed in otherwise.
  int fd() const { return core_->fd(); }

 private:
  friend class RingTestPeer;

  explicit RingSender(std::unique_ptr<internal::SenderCore> core)
      : core_(std::move(core)) {}

  std::unique_ptr<internal::SenderCore> core_;
};

// A message that was received, where it lies in the ring. Its end acknowledges
// it; see Delivery above. If several are held, they are acknowledged in order:
// one that ends before an older one, with the last that ends. Move-only.
class View {
 public:
  View(View&& other) noexcept
      : core_(std::exchange(other.core_, nullptr)), record_(other.record_) {}
  View& operator=(View&& other) noexcept {
    std::swap(core_, other.core_);
    std::swap(record_, other.record_);
    return *this;
  }
  ~View() {
    if (core_ != nullptr) core_->GiveBack(record_.begin, record_.end);
  }

  absl::Span<const std::byte> data() const {
    return {record_.data, record_.length};
  }
  absl::string_view text() const {
    return {reinterpret_cast<const char*>(record_.data), record_.length};
  }
  uint32_t type() const { return record_.type; }
  // Whether it was handed to a receiver before, which died or left with it.
  bool redelivered() const { return record_.redelivered; }

 private:
  friend class RingReceiver;

  View(internal::ReceiverCore* core,
       const internal::ReceiverCore::Record& record)
      : core_(core), record_(record) {
    core_->Hold();
  }

  internal::ReceiverCore* core_;
  internal::ReceiverCore::Record record_;
};

// All messages that were there at one time, one after the other. Its end
// acknowledges those that Next was called for. Move-only.
//
//   absl::StatusOr<Batch> batch = receiver.ReceiveBatch();
//   while (batch->Next()) Show(batch->data());
class Batch {
 public:
  Batch(Batch&& other) noexcept
      : core_(std::exchange(other.core_, nullptr)),
        begin_(other.begin_),
        end_(other.end_),
        next_(other.next_),
        record_(other.record_) {}
  Batch& operator=(Batch&& other) noexcept {
    std::swap(core_, other.core_);
    std::swap(begin_, other.begin_);
    std::swap(end_, other.end_);
    std::swap(next_, other.next_);
    std::swap(record_, other.record_);
    return *this;
  }
  ~Batch() {
    if (core_ != nullptr) core_->GiveBack(begin_, next_);
  }

  // Goes on to the first message, or to the next one. False if there is none,
  // if the receiver was asked for messages otherwise meanwhile, or if the ring
  // is damaged; its next call tells.
  bool Next() {
    if (core_ == nullptr || core_->position() != next_ || next_ == end_ ||
        core_->TryTake(&record_) != internal::ReceiverCore::Taken::kRecord) {
      return false;
    }
    next_ = record_.end;
    return true;
  }

  // Of the message that the last Next has gone on to. The data stays there
  // until the end of the Batch.
  absl::Span<const std::byte> data() const {
    return {record_.data, record_.length};
  }
  absl::string_view text() const {
    return {reinterpret_cast<const char*>(record_.data), record_.length};
  }
  uint32_t type() const { return record_.type; }
  bool redelivered() const { return record_.redelivered; }

 private:
  friend class RingReceiver;

  explicit Batch(internal::ReceiverCore* core)
      : core_(core),
        begin_(core->position()),
        end_(core->known_end()),
        next_(begin_) {
    core_->Hold();
  }

  internal::ReceiverCore* core_;
  uint64_t begin_;
  uint64_t end_;
  uint64_t next_;
  internal::ReceiverCore::Record record_ = {};
};

// The end to receive by. Move-only.
class RingReceiver {
 public:
  // As RingSender::FromFd, for the other end. What the receiver before has not
  // acknowledged comes first.
  static absl::StatusOr<RingReceiver> FromFd(UniqueFd fd);

  RingReceiver(RingReceiver&&) noexcept = default;
  RingReceiver& operator=(RingReceiver&&) noexcept = default;
  // Closes the ring: what was not received is lost. To hand it on, Leave first.
  ~RingReceiver() = default;

  // The next message. DeadlineExceeded if there was none up to `timeout`;
  // OutOfRange if the sender has closed the ring, Unavailable if it has died,
  // and all that it sent was received.
  absl::StatusOr<View> Receive(
      absl::Duration timeout = absl::InfiniteDuration()) {
    internal::ReceiverCore::Record record;
    if (core_->TryTake(&record) != internal::ReceiverCore::Taken::kRecord)
        [[unlikely]] {
      if (absl::Status status = core_->Take(timeout, &record); !status.ok()) {
        return status;
      }
    }
    return View(core_.get(), record);
  }
  // nullopt if there is none now. Else as Receive.
  absl::StatusOr<std::optional<View>> TryReceive();
  // Waits for a message, and then takes all that there are. Else as Receive.
  absl::StatusOr<Batch> ReceiveBatch(
      absl::Duration timeout = absl::InfiniteDuration());

  // The sender gets Unavailable from now on. Idempotent.
  void Close() { core_->Close(); }
  // Gives the end up, for another process to attach to it. What is not
  // acknowledged now, the next receiver gets again.
  void Leave() { core_->Leave(); }

  // As of RingSender.
  int fd() const { return core_->fd(); }

 private:
  friend class RingTestPeer;

  explicit RingReceiver(std::unique_ptr<internal::ReceiverCore> core)
      : core_(std::move(core)) {}

  std::unique_ptr<internal::ReceiverCore> core_;
};

}  // namespace ipc::pipe

#endif  // IPC_PIPE_RING_H_

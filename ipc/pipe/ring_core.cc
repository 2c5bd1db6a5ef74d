#include "ipc/pipe/ring_core.h"

#include "absl/strings/str_cat.h"
#include "ipc/base/own_line.h"
#include "ipc/base/spin_wait.h"

namespace ipc::pipe::internal {
namespace {

// The head may lag by this part of the ring.
constexpr uint64_t kLagPart = 8;
// In a larger ring a line has left the sender's cache before it comes to be
// written again.
constexpr uint64_t kMaxOwnedCapacity = uint64_t{1} << 20;
constexpr uint64_t kLine = 64;

bool IsPosition(uint64_t position) { return position % kRecordAlignment == 0; }

}  // namespace

absl::StatusOr<std::unique_ptr<SenderCore>> SenderCore::Attach(UniqueFd fd) {
  auto core = std::make_unique<SenderCore>();
  if (absl::Status status = core->Open(std::move(fd)); !status.ok()) {
    return status;
  }
  core->data_ = core->memory_.data();
  core->mask_ = core->capacity() - 1;
  core->max_message_ = core->max_message();
  // The one before has ended, as the lock shows. What it had not committed lies
  // behind the tail, and is written over.
  const uint64_t tail = core->header().tail.load(std::memory_order_acquire);
  core->tail_ = core->published_ = core->limit_ = tail;  // full, at first
  // Acquire as in LookForRoom.
  if (!IsPosition(tail) ||
      !core->Accept(core->header().head.load(std::memory_order_acquire))) {
    return core->Damaged();
  }
  core->Announce();
  if (core->IsPeerClosed()) core->mode_ = Mode::kPeerClosed;
  return core;
}

bool SenderCore::Accept(uint64_t head) {
  // No receiver can have read more than was committed.
  const uint64_t known = limit_ - capacity();
  if (head - known <= published_ - known) {
    limit_ = head + capacity();
    return true;
  }
  // The shared head lags behind what is known from `acked`. It never goes back
  // otherwise, unless a peer writes rubbish; then we do not follow.
  return static_cast<int64_t>(head - known) < 0;
}

RingEnd::Seen SenderCore::LookForRoom(uint64_t size, bool thorough) {
  // Acquire, here and below, pairs with the release in GiveBack and
  // PublishHead.
  if (!Accept(header().head.load(std::memory_order_acquire))) {
    return Seen::kDamaged;
  }
  if (limit_ - tail_ >= size) return Seen::kReady;
  if (!thorough) return Seen::kNothing;
  // The head may lag; this does not, but it is on a line that is the receiver's
  // for each record.
  if (!Accept(header().acked.load(std::memory_order_acquire))) {
    return Seen::kDamaged;
  }
  return limit_ - tail_ >= size ? Seen::kReady : Seen::kNothing;
}

absl::Status SenderCore::Reserve(uint64_t bytes, absl::Duration timeout,
                                 uint64_t* position) {
  if (mode_ != Mode::kOpen) return ModeError();
  if (bytes > max_message_) {
    return absl::InvalidArgumentError(
        absl::StrCat(Name(), ": a message of ", bytes,
                     " bytes; this ring takes at most ", max_message_));
  }
  // Else we might wait for room that only these can give.
  if (absl::Status status = PublishStaged(); !status.ok()) return status;
  const uint64_t padding = bytes < kLongPayload ? 0 : PaddingAt(tail_);
  const uint64_t size = padding + RecordSize(bytes);
  // For less it need not be woken: that is a system call of the receiver's.
  wanted_ = tail_ + size - capacity();
  const absl::Status status = Await(timeout, [&](bool thorough) {
    if (thorough && IsPeerClosed()) return Seen::kNothing;
    return LookForRoom(size, thorough);
  });
  if (!status.ok()) {
    if (IsPeerClosed()) mode_ = Mode::kPeerClosed;
    return status;
  }
  *position = tail_ + padding;
  mode_ = Mode::kReserved;
  return absl::OkStatus();
}

absl::Status SenderCore::PublishStaged() {
  if (mode_ != Mode::kOpen && mode_ != Mode::kReserved) return ModeError();
  return published_ == tail_ ? absl::OkStatus() : Publish();
}

absl::Status SenderCore::NotReserved() const {
  if (mode_ != Mode::kOpen) return ModeError();
  return absl::FailedPreconditionError(
      absl::StrCat(Name(), ": committed already"));
}

absl::Status SenderCore::WakeReceiver() {
  Wake(header().receiver_bell);
  if (!IsPeerClosed()) return absl::OkStatus();
  mode_ = Mode::kPeerClosed;
  // It may have received all that was just committed, and closed then. Relaxed:
  // it is closed, so all that it has stored is there.
  if (header().acked.load(std::memory_order_relaxed) == published_) {
    return absl::OkStatus();
  }
  return ModeError();
}

void SenderCore::End(EndState state) {
  if (!IsHeld()) return;
  if (published_ != tail_) Publish().IgnoreError();
  GiveUp(state);
}

absl::StatusOr<std::unique_ptr<ReceiverCore>> ReceiverCore::Attach(
    UniqueFd fd) {
  auto core = std::make_unique<ReceiverCore>();
  if (absl::Status status = core->Open(std::move(fd)); !status.ok()) {
    return status;
  }
  core->data_ = core->memory_.data();
  const uint64_t capacity = core->memory_.capacity();
  core->mask_ = capacity - 1;
  core->lag_ = capacity / kLagPart;
  core->owns_lines_ = capacity <= kMaxOwnedCapacity;
  // The one before has ended, as the lock shows: all that it has stored is
  // there, and relaxed is enough. Acquire as in LookForRecord.
  RingHeader& header = core->header();
  const uint64_t acked = header.acked.load(std::memory_order_relaxed);
  const uint64_t delivered = header.delivered.load(std::memory_order_relaxed);
  const uint64_t tail = header.tail.load(std::memory_order_acquire);
  if (!IsPosition(acked) || !IsPosition(tail) || tail - acked > capacity ||
      delivered - acked > tail - acked) {
    return core->Damaged();
  }
  core->head_ = core->acked_ = acked;
  core->tail_ = tail;
  core->redelivered_end_ = delivered;
  // It may lag behind what the one before has acknowledged.
  core->PublishHead();
  core->Announce();
  return core;
}

RingEnd::Seen ReceiverCore::LookForRecord() {
  // Acquire pairs with the release in SenderCore::Publish.
  const uint64_t tail = header().tail.load(std::memory_order_acquire);
  if (tail == head_) return Seen::kNothing;
  const uint64_t capacity = memory_.capacity();
  if (!IsPosition(tail) || tail - acked_ > capacity ||
      tail - head_ > capacity) {
    return Seen::kDamaged;
  }
  tail_ = tail;
  return Seen::kReady;
}

absl::Status ReceiverCore::AwaitOne(absl::Duration timeout) {
  if (mode_ != Mode::kOpen) return ModeError();
  if (head_ != tail_) return absl::OkStatus();
  // The sender may have nothing left but what it does not know to be free.
  if (published_ != acked_) PublishHead();
  // Who got several in a row will get several again, if it leaves the cache
  // lines to the sender for a moment; who got one waits for an answer.
  if (in_a_row_ > 1 && timeout > absl::ZeroDuration()) {
    PauseForStream();
  }
  in_a_row_ = 0;
  return Await(timeout, [this](bool) { return LookForRecord(); });
}

absl::Status ReceiverCore::AwaitAll(absl::Duration timeout) {
  if (absl::Status status = AwaitOne(timeout); !status.ok()) return status;
  return LookForRecord() == Seen::kReady ? absl::OkStatus() : Damaged();
}

absl::Status ReceiverCore::Take(absl::Duration timeout, Record* record) {
  if (absl::Status status = AwaitOne(timeout); !status.ok()) return status;
  return TryTake(record) == Taken::kRecord ? absl::OkStatus() : Damaged();
}

void ReceiverCore::OwnLines(uint64_t begin, uint64_t end) const {
  // By the distance: positions that a peer has damaged may wrap around.
  for (uint64_t at = (begin + kLine - 1) & ~(kLine - 1);
       static_cast<int64_t>(end - at) > 0; at += kLine) {
    OwnLine(At(at));
  }
}

void ReceiverCore::WakeSender() {
  // Acquire pairs with the release in Park. Should we read an old `wanted`, its
  // storer sees our `acked`, as it does for the flag.
  if (header().sender_bell.waiting.load(std::memory_order_acquire) == 0) return;
  const uint64_t wanted =
      header().sender_bell.wanted.load(std::memory_order_relaxed);
  if (static_cast<int64_t>(acked_ - wanted) < 0) return;
  if (published_ != acked_) PublishHead();
  Wake(header().sender_bell);
}

}  // namespace ipc::pipe::internal

// What is behind RingSender and RingReceiver (ring.h, which says what they do):
// the positions, and the orders in which they are loaded and stored. Inline is
// what every record passes through.
//
// Each end keeps a copy of the other one's position and looks at the shared one
// only if that is not enough, so that in a steady stream the positions' cache
// lines seldom travel. A position of the other end is loaded once, checked, and
// then used; one's own is never read back.
#ifndef IPC_PIPE_RING_CORE_H_
#define IPC_PIPE_RING_CORE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ipc/base/asymmetric_fence.h"
#include "ipc/base/unique_fd.h"
#include "ipc/pipe/ring_end.h"
#include "ipc/pipe/ring_layout.h"

namespace ipc::pipe::internal {

// The first eight bytes of a record. The other process may write to them at any
// time: one atomic access each. Relaxed: tail orders what is in the records.
inline std::atomic_ref<uint64_t> HeaderOf(std::byte* record) {
  return std::atomic_ref<uint64_t>(*reinterpret_cast<uint64_t*>(record));
}

class SenderCore final : public RingEnd {
 public:
  static absl::StatusOr<std::unique_ptr<SenderCore>> Attach(UniqueFd fd);
  SenderCore() : RingEnd(Side::kSender) {}
  ~SenderCore() { Close(); }

  uint64_t capacity() const { return memory_.capacity(); }
  uint64_t max_message() const { return capacity() - kLongestOverhead; }

  // Where a record may be written, and its payload then.
  std::byte* At(uint64_t position) const { return data_ + (position & mask_); }

  // False if it has to wait, or cannot be. Else Commit or Abort comes next.
  bool TryReserve(uint64_t bytes, uint64_t* position) {
    if (mode_ != Mode::kOpen || bytes > max_message_) return false;
    const uint64_t padding = bytes < kLongPayload ? 0 : PaddingAt(tail_);
    if (limit_ - tail_ < padding + RecordSize(bytes)) return false;
    *position = tail_ + padding;
    mode_ = Mode::kReserved;
    return true;
  }
  // The same, waiting.
  absl::Status Reserve(uint64_t bytes, absl::Duration timeout,
                       uint64_t* position);
  bool IsReserved() const { return mode_ == Mode::kReserved; }
  absl::Status NotReserved() const;

  // REQUIRES: IsReserved(), and `bytes` are no more than were reserved.
  void Stage(uint64_t position, uint32_t bytes, uint32_t type) {
    mode_ = Mode::kOpen;
    HeaderOf(At(position))
        .store(PackHeader(bytes, type), std::memory_order_relaxed);
    if (position != tail_) {
      HeaderOf(At(tail_)).store(PackHeader(kPadding, 0),
                                std::memory_order_relaxed);
    }
    tail_ = position + RecordSize(bytes);
  }
  void Abort() {
    if (IsReserved()) mode_ = Mode::kOpen;
  }

  // Commits all that is staged. Unavailable if the receiver has closed.
  // REQUIRES: IsHeld().
  absl::Status Publish() {
    published_ = tail_;
    // Release pairs with the acquire in ReceiverCore::LookForRecord: who sees
    // the position sees the records before it.
    header().tail.store(tail_, std::memory_order_release);
    // See RingEnd for how this finds every sleeper.
    LightFence();
    if (header().receiver_bell.waiting.load(std::memory_order_relaxed) != 0)
        [[unlikely]] {
      return WakeReceiver();
    }
    return absl::OkStatus();
  }

  // The same, whatever this end is.
  absl::Status PublishStaged();

  // For good. Publishes what is staged.
  void Close() { End(EndState::kClosed); }
  // Another one may attach.
  void Leave() { End(EndState::kNone); }

 private:
  void End(EndState state);
  absl::Status WakeReceiver();
  Seen LookForRoom(uint64_t size, bool thorough);
  // Takes over a position of the receiver; false if it cannot be one.
  bool Accept(uint64_t head);

  std::byte* data_ = nullptr;
  uint64_t mask_ = 0;
  uint64_t max_message_ = 0;
  uint64_t tail_ = 0;       // the end of what was staged
  uint64_t limit_ = 0;      // a head that was seen, + capacity
  uint64_t published_ = 0;  // what the shared tail is
};

class ReceiverCore final : public RingEnd {
 public:
  static absl::StatusOr<std::unique_ptr<ReceiverCore>> Attach(UniqueFd fd);
  ReceiverCore() : RingEnd(Side::kReceiver) {}
  ~ReceiverCore() { GiveUp(EndState::kClosed); }

  struct Record {
    const std::byte* data;
    uint32_t length;
    uint32_t type;
    uint64_t begin;  // with the padding before it
    uint64_t end;
    bool redelivered;
  };
  enum class Taken { kNone, kRecord, kDamaged };

  // The next record that is known to be there.
  Taken TryTake(Record* record) {
    if (head_ == tail_ || mode_ != Mode::kOpen) return Taken::kNone;
    uint64_t at = head_;
    // All lengths are against what is left up to the tail.
    uint64_t packed = HeaderOf(At(at)).load(std::memory_order_relaxed);
    if (static_cast<uint32_t>(packed) == kPadding) [[unlikely]] {
      at += PaddingAt(at);
      if (at == head_ || at - head_ >= tail_ - head_) return Taken::kDamaged;
      packed = HeaderOf(At(at)).load(std::memory_order_relaxed);
    }
    const uint32_t length = static_cast<uint32_t>(packed);
    const uint64_t end = at + RecordSize(length);
    if (end - head_ > tail_ - head_) [[unlikely]]
      return Taken::kDamaged;
    *record = {.data = At(at) + kRecordHeader,
               .length = length,
               .type = static_cast<uint32_t>(packed >> 32),
               .begin = head_,
               .end = end,
               .redelivered = end <= redelivered_end_};
    if (!record->redelivered) {
      // Before the caller can look at it. Relaxed: only a successor reads it,
      // which the kernel has told of our death, and so of all before that; but
      // the compiler must not move it down.
      header().delivered.store(end, std::memory_order_relaxed);
      std::atomic_signal_fence(std::memory_order_seq_cst);
    }
    head_ = end;
    ++in_a_row_;
    return Taken::kRecord;
  }
  absl::Status Take(absl::Duration timeout, Record* record);
  // Waits for a record; then looks for all there are.
  absl::Status AwaitAll(absl::Duration timeout);

  // Whoever holds records counts as one, and gives them back, from the begin of
  // the first to the end of the last. They are acknowledged as soon as those
  // before them are, or nobody holds any.
  void Hold() { ++holders_; }
  void GiveBack(uint64_t begin, uint64_t end) {
    if (mode_ != Mode::kOpen) return;
    if (--holders_ == 0) {
      end = head_;
    } else if (begin != acked_) {
      return;
    }
    if (owns_lines_ && in_a_row_ > 1) OwnLines(acked_, end);
    acked_ = end;
    // Release pairs with the acquire in SenderCore::LookForRoom: the records
    // were read before their memory is written again.
    header().acked.store(end, std::memory_order_release);
    // The sender has most of the ring still; or all of it, see Take.
    if (end - published_ >= lag_) PublishHead();
    // See RingEnd for how this finds every sleeper.
    LightFence();
    if (header().sender_bell.waiting.load(std::memory_order_relaxed) != 0)
        [[unlikely]] {
      WakeSender();
    }
  }

  uint64_t position() const { return head_; }
  // The end of what is known to be there.
  uint64_t known_end() const { return tail_; }

  void Close() { GiveUp(EndState::kClosed); }
  void Leave() { GiveUp(EndState::kNone); }

 private:
  std::byte* At(uint64_t position) const { return data_ + (position & mask_); }
  void PublishHead() {
    published_ = acked_;
    // Release as in GiveBack.
    header().head.store(acked_, std::memory_order_release);
  }
  // OwnLine for each line between them, which are read; the sender will write
  // there one lap later.
  void OwnLines(uint64_t begin, uint64_t end) const;
  void WakeSender();
  absl::Status AwaitOne(absl::Duration timeout);
  Seen LookForRecord();

  std::byte* data_ = nullptr;
  uint64_t mask_ = 0;
  uint64_t lag_ = 0;              // how far the shared head may lag
  bool owns_lines_ = false;       // for small rings; see OwnLines
  uint64_t head_ = 0;             // the end of what was taken
  uint64_t tail_ = 0;             // the shared tail as last seen and checked
  uint64_t acked_ = 0;            // what the shared acked is
  uint64_t published_ = 0;        // what the shared head is
  uint64_t redelivered_end_ = 0;  // of what the one before had been handed
  uint32_t holders_ = 0;
  uint32_t in_a_row_ = 0;  // taken since it last waited
};

}  // namespace ipc::pipe::internal

#endif  // IPC_PIPE_RING_CORE_H_

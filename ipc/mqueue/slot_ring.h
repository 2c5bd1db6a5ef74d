// The slot machine of one lane of a queue: claims, commits and repairs, none of
// which waits for anybody or wakes a receiver. Queue adds waiting and errors.
//
// Source of the algorithm: D. Vyukov's bounded MPMC queue, its per-slot
// sequence number widened by a state and an owner, so that anybody can see who
// left a slot half done, and with commits by CAS.
//
// Invariants, for peers that keep to the rules:
// 1. Only slot words decide. `tail` is not after the first FREE position, nor
//    `head` after the first one that is FREE, WRITING, READY or SKIP; both may
//    lag behind: the tail by one that is being written, and either by one whose
//    owner was killed before it helped it forward.
// 2. The message of a slot is written only by the one owner named in WRITING,
//    before the commit, and read only by the one named in READING.
// 3. A state that carries an owner is left by this owner, or, once the kernel
//    says that it is dead, by anybody.
//
// For peers that do not: every index is masked, every length checked, every
// loop bounded; the result is kCorrupt at worst.
//
// Memory order: everything is seq_cst. On x86-64 a load costs the same in any
// order and a CAS is a full barrier in any, and it is what Doorbell asks for.
//
// Thread safety: all members may be called by any thread of any process.
#ifndef IPC_MQUEUE_SLOT_RING_H_
#define IPC_MQUEUE_SLOT_RING_H_

#include <algorithm>
#include <atomic>
#include <bit>
#include <climits>
#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "ipc/base/copy.h"
#include "ipc/base/current_cpu.h"
#include "ipc/base/own_line.h"
#include "ipc/base/participants.h"
#include "ipc/mqueue/arena.h"
#include "ipc/mqueue/layout.h"
#include "ipc/mqueue/slot_word.h"

namespace ipc::mqueue {

class SlotRing {
 public:
  enum class Outcome {
    kOk,
    kWouldBlock,  // full, or empty
    kClosed,      // to senders: closed; to receivers: closed and drained
    kCorrupt,     // what no honest peer can have done
  };

  // A slot that is ours until it is committed, or what stands in the way.
  struct Claim {
    uint32_t slot = 0;
    // kOk: what the slot holds now. kWouldBlock: what was seen; its owner, if
    // it has one, is who keeps us waiting.
    SlotWord word{0};
    uint64_t position = 0;     // kOk: where in the order, unless redelivered
    bool redelivered = false;  // kOk of a receive: not for the first time

    // One by one: an assignment of the whole would be made beside it and then
    // copied, while its parts are still on their way to memory.
    void Set(uint32_t i, SlotWord w, uint64_t p, bool r) {
      slot = i;
      word = w;
      position = p;
      redelivered = r;
    }
  };

  // `segment` is mapped and as large as the checked `geometry` says.
  SlotRing(std::byte* segment, const Geometry& geometry, uint32_t lane);

  Outcome BeginSend(Participant self, Claim* claim);
  // Leaves word of the CPU we run on, and returns where the slot's last user
  // ran, or -1. REQUIRES: a claim.
  int ExchangeCpu(const Claim& claim);
  // Fetches the slot that will be claimed so many messages later, which is
  // about as long as that takes. Only if no peer is just using it.
  uint32_t prefetch_slots() const { return prefetch_slots_; }
  void PrefetchAfter(const Claim& claim) const {
    const SlotHeader* later = &slot((claim.slot + prefetch_slots_) & mask_);
    PrefetchToWrite(later);
    if (stride_ > 64) PrefetchToWrite(later + 4);
  }
  // How many slots the two sides of a stream keep between them where the ring
  // is nearly empty or nearly full, if they can. Processors fetch ahead of who
  // writes or reads one line after the other: nearer, each takes lines from the
  // other that the other is about to use.
  uint32_t slots_apart() const { return slots_apart_; }
  // The same for all of them up to there, or to `end`.
  void PrefetchFrom(uint64_t position, uint64_t end) const {
    end = std::min(end, position + prefetch_slots_);
    for (; position < end; ++position) {
      const SlotHeader* next = &slot(IndexOf(position));
      PrefetchToWrite(next);
      if (stride_ > 64) PrefetchToWrite(next + 4);
    }
  }
  // REQUIRES: a claim by BeginSend, and no more than inline_bytes.
  void Fill(const Claim& claim, absl::Span<const std::byte> message,
            uint16_t type);
  // The message is in a block, LOANED by the claim's owner.
  void FillName(const Claim& claim, BlockName block);
  // False if the slot has been taken away, and the message is not sent. Only
  // now moves the tail on: a receiver that has seen it move goes to the slot at
  // once, and would take it from us before the message is written.
  bool CommitSend(const Claim& claim) {
    const bool committed =
        Change(claim.slot, claim.word, claim.word.To(SlotState::kReady));
    Help(lane_->tail, claim.position);
    return committed;
  }

  Outcome BeginReceive(Participant self, Claim* claim);
  // The message of a claim by BeginReceive, valid until it is committed.
  struct Message {
    // data() == nullptr: in a block, or, if `in_block` is false, rubbish.
    absl::Span<const std::byte> data;
    uint16_t type = 0;
    bool in_block = false;
    BlockName block = {};
  };
  Message Contents(const Claim& claim) const;
  // False if the slot has been taken away: somebody else has the message.
  bool CommitReceive(const Claim& claim);
  // Before the commit: OwnLine for each line but the first that a message of so
  // many bytes covers; the sender will write there one lap later.
  void OwnLines(const Claim& claim, size_t bytes) const;
  // Gives the message back instead, as the first that will be received next.
  bool PutBack(const Claim& claim);

  // Takes away what the dead one holds here, and in `arena` through a slot.
  void Sweep(Participant dead, Arena* arena);
  // Frees a slot whose owner never was or is gone: no honest peer leaves one,
  // but it would block the ring for ever. Returns whether it was one.
  bool HealOrphan(const Claim& seen);
  // Whether the positions contradict the slots so that waiting would be in
  // vain: no honest peer brings that about.
  bool LooksDamaged() const;

  // At most slot_count; includes slots being written.
  uint32_t ApproximateSize() const;

  bool IsClosed() const { return header_->shared.closed.load() != 0; }
  // Whether another sender would find a slot, or another receiver a message,
  // now; hints.
  bool MaySend() const;
  // Whether a sender that had to wait would find room for a few messages in a
  // row. One that goes on at the first free slot remains at its receiver's
  // heels, and each slot's lines then go back and forth while both use them.
  bool MaySendMany() const;
  bool MayReceive() const;
  // The same without a look at the slot, which a sender may just be using: by
  // the positions, which may lag behind.
  bool HintsAtMessage() const {
    return lane_->head.load() < lane_->tail.load() ||
           (requeued_->load() & 1) != 0;
  }

  struct Counts {
    uint64_t sent;
    uint64_t received;
    uint64_t pending;  // at most slot_count
  };
  // Exact while nobody sends or receives, but for what `skipped`, `recycled`
  // and `overwritten` count of all lanes. From the positions and the slot at
  // the tail, so that it takes hardly any from those who use it; only where the
  // dead have left REQ or, as `has_skipped` says, SKIP does it look at every
  // slot.
  Counts Count(bool has_skipped) const;

  SlotWord Load(uint32_t i) const { return SlotWord(slot(i).word.load()); }
  uint64_t head() const { return lane_->head.load(); }
  uint64_t tail() const { return lane_->tail.load(); }
  uint64_t slot_count() const { return geometry_.slot_count; }
  // Wakes those who wait for what has just been freed here, or in the arena.
  void RingForRoom() {
    header_->senders.bell.Ring(senders_to_wake_);
    header_->senders.joiners.Ring(INT_MAX);
  }

 private:
  SlotHeader& slot(uint32_t i) const {
    return *reinterpret_cast<SlotHeader*>(slots_ + size_t{i} * stride_);
  }
  bool Change(uint32_t i, SlotWord from, SlotWord to) {
    uint64_t expected = from.bits();
    return slot(i).word.compare_exchange_strong(expected, to.bits());
  }
  static void Help(std::atomic<uint64_t>& position, uint64_t from) {
    position.compare_exchange_strong(from, from + 1);
  }
  // Where a slot has its BlockName.
  static std::atomic<uint64_t>& NameWord(SlotHeader& header) {
    return *reinterpret_cast<std::atomic<uint64_t>*>(&header + 1);
  }
  // Asks for a line that is about to be changed, as our own at once: to read it
  // first would fetch it from its last writer twice, to share and to own.
  static void PrefetchToWrite(const void* line) {
#if defined(__x86_64__)
    // Of GCC's prefetches for writing this is made only with -mprfchw. It is a
    // hint, or on the oldest processors nothing.
    asm volatile("prefetchw %0"
                 :
                 : "m"(*static_cast<const volatile char*>(line)));
#else
    __builtin_prefetch(line, 1);
#endif
  }
  static constexpr uint32_t kMaxPrefetchSlots = 12;
  static constexpr uint32_t kMaxSlotsApart = 64;
  static constexpr uint32_t kMaxBurst = 32;
  uint32_t IndexOf(uint64_t position) const {
    return static_cast<uint32_t>(position) & mask_;
  }
  uint32_t LapMask() const {
    return static_cast<uint32_t>((uint64_t{1} << geometry_.lap_bits) - 1);
  }
  // How many laps the word is ahead of what `position` asks for.
  int32_t LapsAhead(SlotWord word, uint64_t position) const {
    const uint32_t lap = static_cast<uint32_t>(position >> log2_slots_);
    return static_cast<int32_t>((word.lap() - lap) << lap_shift_) >> lap_shift_;
  }
  // Whether the position is taken, by whoever has not moved the tail on yet or
  // died before: nobody can claim it any more.
  bool IsClaimed(SlotWord word, uint64_t position) const {
    const int32_t ahead = LapsAhead(word, position);
    return ahead > 0 || (ahead == 0 && word.state() != SlotState::kFree &&
                         word.state() != SlotState::kEnd);
  }
  SlotWord NextLap(SlotWord word) const {
    return SlotWord::Of(SlotState::kFree, (word.lap() + 1) & LapMask());
  }

  // Help for a claim whose owner died before it did so itself.
  void HelpForward();
  void Recycle(uint32_t i, SlotWord skip, uint64_t position);
  bool TakeRequeued(Participant self, Claim* claim);
  Outcome AtEnd(Participant self, Claim* claim);
  void AnnounceRequeued();

  const Geometry geometry_;
  const uint32_t mask_;
  const uint32_t log2_slots_;
  const uint32_t lap_shift_;
  const uint32_t prefetch_slots_;
  const uint32_t slots_apart_;
  const size_t stride_;
  Header* const header_;
  Lane* const lane_;
  std::atomic<uint64_t>* const requeued_;
  const int senders_to_wake_;
  std::byte* const slots_;
  const ParticipantTable participants_;
};

// Of every message, so without a call.

inline int SlotRing::ExchangeCpu(const Claim& claim) {
  SlotHeader& header = slot(claim.slot);
  const int last = header.cpu;
  header.cpu = static_cast<uint16_t>(CurrentCpu() + 1);
  return last - 1;
}

inline void SlotRing::Fill(const Claim& claim,
                           absl::Span<const std::byte> message, uint16_t type) {
  SlotHeader& header = slot(claim.slot);
  header.length = static_cast<uint32_t>(message.size());
  header.type = type;
  CopyBytes(&header + 1, message.data(), message.size());
}

inline SlotRing::Message SlotRing::Contents(const Claim& claim) const {
  SlotHeader& header = slot(claim.slot);
  // Loaded once (volatile): a hostile peer may change it after the check.
  const uint32_t length = *const_cast<volatile uint32_t*>(&header.length);
  Message message;
  if (length == SlotHeader::kInBlock) {
    message.in_block = true;
    message.block = std::bit_cast<BlockName>(
        NameWord(header).load(std::memory_order_relaxed));
    return message;
  }
  if (length > geometry_.inline_bytes) return {};
  message.data = {reinterpret_cast<const std::byte*>(&header + 1), length};
  message.type = *const_cast<volatile uint16_t*>(&header.type);
  return message;
}

inline void SlotRing::OwnLines(const Claim& claim, size_t bytes) const {
  auto* const begin = reinterpret_cast<std::byte*>(&slot(claim.slot));
  for (size_t at = 64; at < sizeof(SlotHeader) + bytes; at += 64) {
    OwnLine(begin + at);
  }
}

inline bool SlotRing::CommitReceive(const Claim& claim) {
  if (!Change(claim.slot, claim.word, NextLap(claim.word))) return false;
  RingForRoom();
  return true;
}

}  // namespace ipc::mqueue

#endif  // IPC_MQUEUE_SLOT_RING_H_

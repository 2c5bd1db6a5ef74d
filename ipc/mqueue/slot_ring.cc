#include "ipc/mqueue/slot_ring.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <climits>
#include <cstring>

namespace ipc::mqueue {
namespace {

// Each step that does not end an operation means that somebody else made
// progress, or that the segment is damaged. Nobody is that unlucky.
constexpr int kMaxSteps = 1 << 20;
// Of those, how many may look at all slots.
constexpr int kMaxScans = 64;

// Positions grow for ever; their difference is what has a sign.
int64_t Distance(uint64_t from, uint64_t to) {
  return static_cast<int64_t>(to - from);
}

}  // namespace

SlotRing::SlotRing(std::byte* segment, const Geometry& geometry, uint32_t lane)
    : geometry_(geometry),
      mask_(geometry.slot_count - 1),
      log2_slots_(std::countr_zero(geometry.slot_count)),
      lap_shift_(32 - geometry.lap_bits),
      // Of a small ring, what is further ahead is the other side's.
      prefetch_slots_(std::min(geometry.slot_count / 4, kMaxPrefetchSlots)),
      slots_apart_(std::min(geometry.slot_count * 3 / 16, kMaxSlotsApart)),
      stride_(geometry.slot_stride),
      header_(reinterpret_cast<Header*>(segment)),
      lane_(reinterpret_cast<Lane*>(segment + sizeof(Header)) + lane),
      requeued_(&header_->shared.requeued[lane]),
      // A waiting sender may want another lane's slot, or a block: then all
      // have to look.
      senders_to_wake_(geometry.lanes > 1 || geometry.block_count > 0 ? INT_MAX
                                                                      : 1),
      slots_(segment + geometry.slots_offset +
             size_t{lane} * geometry.slot_count * geometry.slot_stride),
      participants_(reinterpret_cast<ParticipantTable::Word*>(
                        segment + geometry.participants_offset),
                    geometry.participants) {}

SlotRing::Outcome SlotRing::BeginSend(Participant self, Claim* claim) {
  std::atomic<uint64_t>& tail = lane_->tail;
  for (int step = 0; step < kMaxSteps; ++step) {
    if (IsClosed()) return Outcome::kClosed;
    const uint64_t t = tail.load();
    const uint32_t i = IndexOf(t);
    PrefetchToWrite(&slot(i));
    const SlotWord word = Load(i);
    const int32_t ahead = LapsAhead(word, t);
    if (ahead > 0) {
      Help(tail, t);
      continue;
    }
    if (ahead == 0) {
      switch (word.state()) {
        case SlotState::kFree: {
          const SlotWord mine = word.To(SlotState::kWriting, self);
          if (!Change(i, word, mine)) continue;
          claim->Set(i, mine, t, false);
          return Outcome::kOk;
        }
        case SlotState::kEnd:
          return Outcome::kClosed;
        case SlotState::kWriting:
        case SlotState::kReady:
        case SlotState::kReading:
        case SlotState::kRequeued:
        case SlotState::kSkip:
          Help(tail, t);
          continue;
      }
      return Outcome::kCorrupt;
    }
    // Still in use by the lap before, if the tail is where we think.
    if (tail.load() != t) continue;
    if (ahead == -1 && word.state() == SlotState::kSkip) {
      Recycle(i, word, t - geometry_.slot_count);
      continue;
    }
    *claim = {.slot = i, .word = word};
    switch (word.state()) {
      case SlotState::kWriting:
      case SlotState::kReady:
      case SlotState::kReading:
      case SlotState::kRequeued:
        return ahead == -1 ? Outcome::kWouldBlock : Outcome::kCorrupt;
      default:
        return Outcome::kCorrupt;
    }
  }
  return Outcome::kCorrupt;
}

// The name is written whole, so that a reaper that finds us dead in here sees
// this one or the one of an earlier lap, which names nothing that exists.
void SlotRing::FillName(const Claim& claim, BlockName block) {
  SlotHeader& header = slot(claim.slot);
  NameWord(header).store(std::bit_cast<uint64_t>(block),
                         // Relaxed, also the load of it: published by the CAS
                         // of the slot's word, or of the block's.
                         std::memory_order_relaxed);
  header.length = SlotHeader::kInBlock;
}

SlotRing::Outcome SlotRing::BeginReceive(Participant self, Claim* claim) {
  std::atomic<uint64_t>& head = lane_->head;
  int scans = 0;
  for (int step = 0; step < kMaxSteps; ++step) {
    // Set again and again without reason, as only a rogue does, it is not heard
    // for the rest of this call.
    if ((requeued_->load() & 1) != 0 && scans++ < kMaxScans &&
        TakeRequeued(self, claim)) {
      return Outcome::kOk;
    }
    const uint64_t h = head.load();
    const uint32_t i = IndexOf(h);
    PrefetchToWrite(&slot(i));
    const SlotWord word = Load(i);
    const int32_t ahead = LapsAhead(word, h);
    if (ahead > 0) {
      Help(head, h);
      continue;
    }
    if (ahead < 0) {
      if (head.load() != h) continue;
      *claim = {.slot = i, .word = word};
      // A whole lap taken, and this one message not done with: as good as
      // empty. Nobody else can be here.
      if (ahead == -1 && word.state() == SlotState::kReading) {
        return Outcome::kWouldBlock;
      }
      if (ahead == -1 && word.state() == SlotState::kRequeued) {
        // Its reaper has not announced it yet.
        if (scans++ >= kMaxScans) return Outcome::kWouldBlock;
        if (TakeRequeued(self, claim)) return Outcome::kOk;
        continue;
      }
      return Outcome::kCorrupt;
    }
    switch (word.state()) {
      case SlotState::kReady:
      case SlotState::kRequeued: {
        // Its next line comes while we wait for the first one to be ours.
        if (stride_ > 64) __builtin_prefetch(&slot(i) + 4);
        const SlotWord mine = word.To(SlotState::kReading, self);
        if (!Change(i, word, mine)) continue;
        Help(head, h);
        claim->Set(i, mine, h, word.state() == SlotState::kRequeued);
        return Outcome::kOk;
      }
      case SlotState::kReading:
        Help(head, h);
        continue;
      case SlotState::kSkip:
        Recycle(i, word, h);
        continue;
      case SlotState::kWriting:
        if (head.load() != h) continue;
        *claim = {.slot = i, .word = word};
        return Outcome::kWouldBlock;
      case SlotState::kFree:
        if (head.load() != h) continue;
        *claim = {.slot = i, .word = word};
        if (!IsClosed()) return Outcome::kWouldBlock;
        // A sender may have looked before the close and be about to claim this
        // very slot. One of us gets it, so no message is sent after the end.
        Change(i, word, word.To(SlotState::kEnd));
        continue;
      case SlotState::kEnd:
        return AtEnd(self, claim);
    }
    return Outcome::kCorrupt;
  }
  return Outcome::kCorrupt;
}

bool SlotRing::LooksDamaged() const {
  const uint64_t head = lane_->head.load();
  const uint64_t tail = lane_->tail.load();
  SlotWord word = Load(IndexOf(head));
  if (LapsAhead(word, head) == 0 && word.state() == SlotState::kFree) {
    // Empty: the tail is here, or one claim behind that nobody has helped. Else
    // this position has been claimed since we looked at it.
    const int64_t beyond = Distance(head, tail);
    return (beyond < -1 || beyond > 0) && Load(IndexOf(head)) == word &&
           lane_->head.load() == head && lane_->tail.load() == tail;
  }
  word = Load(IndexOf(tail));
  if (LapsAhead(word, tail) == -1 && (word.state() == SlotState::kWriting ||
                                      word.state() == SlotState::kReady)) {
    // Full: the head cannot have passed this one.
    return Distance(head, tail - geometry_.slot_count) < 0 &&
           Load(IndexOf(tail)) == word && lane_->tail.load() == tail;
  }
  return false;
}

// Closed, and no position will be used from here on. It is drained when no
// message is left that could come back, because its consumer dies.
SlotRing::Outcome SlotRing::AtEnd(Participant self, Claim* claim) {
  for (uint32_t i = 0; i <= mask_; ++i) {
    const SlotWord word = Load(i);
    if (word.state() == SlotState::kReading) {
      *claim = {.slot = i, .word = word};
      return Outcome::kWouldBlock;
    }
    if (word.state() == SlotState::kRequeued) {
      return TakeRequeued(self, claim) ? Outcome::kOk : Outcome::kWouldBlock;
    }
  }
  return Outcome::kClosed;
}

bool SlotRing::PutBack(const Claim& claim) {
  if (!Change(claim.slot, claim.word, claim.word.To(SlotState::kRequeued))) {
    return false;
  }
  AnnounceRequeued();
  return true;
}

void SlotRing::Recycle(uint32_t i, SlotWord skip, uint64_t position) {
  if (Change(i, skip, NextLap(skip))) {
    // Relaxed: a statistic orders nothing.
    header_->counts.recycled.fetch_add(1, std::memory_order_relaxed);
    RingForRoom();
  }
  Help(lane_->head, position);
}

bool SlotRing::TakeRequeued(Participant self, Claim* claim) {
  uint64_t version = requeued_->load();
  // From the oldest: the slot at the head holds, if anything is requeued in it,
  // the message of a whole lap ago.
  const uint32_t first = IndexOf(lane_->head.load());
  for (uint32_t n = 0; n <= mask_; ++n) {
    const uint32_t i = (first + n) & mask_;
    const SlotWord word = Load(i);
    if (word.state() != SlotState::kRequeued) continue;
    const SlotWord mine = word.To(SlotState::kReading, self);
    if (Change(i, word, mine)) {
      // Relaxed: a statistic orders nothing.
      header_->counts.redelivered.fetch_add(1, std::memory_order_relaxed);
      *claim = {.slot = i, .word = mine, .redelivered = true};
      return true;
    }
  }
  // Nothing left. Fails if more came while we looked.
  if ((version & 1) != 0) {
    requeued_->compare_exchange_strong(version, version & ~uint64_t{1});
  }
  return false;
}

// The version is raised first: a consumer that saw the flag with the old one
// cannot clear it any more. Called after the slot is REQ; one killed in between
// has not freed the dead one's index yet, so the next reaper calls it again.
void SlotRing::AnnounceRequeued() {
  requeued_->fetch_add(2);
  requeued_->fetch_or(1);
}

void SlotRing::Sweep(Participant dead, Arena* arena) {
  for (uint32_t i = 0; i <= mask_; ++i) {
    const SlotWord word = Load(i);
    if (!word.IsOwnedBy(dead)) continue;
    const Message message = Contents({.slot = i, .word = word});
    // What we read is the dead one's only if the slot was its own all the time,
    // and still is: another reaper may have been faster.
    if (Load(i) != word) continue;
    // The word has only the low bits of an epoch. While the participant is
    // marked with the whole of it, no later one with the same bits exists.
    if (!participants_.IsMarkedDead(dead)) return;
    if (word.state() == SlotState::kReading) {
      if (message.in_block) arena->Requeue(dead, message.block);
      Change(i, word, word.To(SlotState::kRequeued));
      continue;
    }
    if (message.in_block) arena->FreeQueued(message.block);
    if (Change(i, word, word.To(SlotState::kSkip))) {
      // Relaxed: a statistic orders nothing.
      header_->counts.skipped.fetch_add(1, std::memory_order_relaxed);
    }
  }
  HelpForward();
  AnnounceRequeued();
}

// So that the positions are exact where nobody sends or receives.
void SlotRing::HelpForward() {
  const uint64_t tail = lane_->tail.load();
  SlotWord word = Load(IndexOf(tail));
  if (IsClaimed(word, tail)) Help(lane_->tail, tail);
  const uint64_t head = lane_->head.load();
  word = Load(IndexOf(head));
  if (LapsAhead(word, head) > 0 ||
      (LapsAhead(word, head) == 0 && word.state() == SlotState::kReading)) {
    Help(lane_->head, head);
  }
}

bool SlotRing::HealOrphan(const Claim& seen) {
  if (!seen.word.IsOwned()) return false;
  const uint32_t index = seen.word.owner_index();
  const ParticipantTable::Entry entry = participants_.Load(index);
  if (index < participants_.capacity() &&
      (entry.state == ParticipantTable::State::kAlive ||
       entry.state == ParticipantTable::State::kDead) &&
      seen.word.IsOwnedBy({index, entry.epoch})) {
    return false;  // has an owner, alive or about to be swept
  }
  // If the slot still says so after the table does not, the owner was gone when
  // we looked, as it cannot have left the table and kept the slot.
  if (seen.word.state() == SlotState::kReading) {
    if (!Change(seen.slot, seen.word, seen.word.To(SlotState::kRequeued))) {
      return false;
    }
    AnnounceRequeued();
  } else if (Change(seen.slot, seen.word, seen.word.To(SlotState::kSkip))) {
    // Relaxed: a statistic orders nothing.
    header_->counts.skipped.fetch_add(1, std::memory_order_relaxed);
  } else {
    return false;
  }
  return true;
}

bool SlotRing::MaySend() const {
  uint64_t t = lane_->tail.load();
  SlotWord word = Load(IndexOf(t));
  // Past those being written: the tail lags, and was loaded before.
  for (uint32_t n = 0; n <= mask_ && IsClaimed(word, t); ++n) {
    word = Load(IndexOf(++t));
  }
  return LapsAhead(word, t) == 0 && word.state() == SlotState::kFree;
}

bool SlotRing::MaySendMany() const {
  const uint64_t last =
      lane_->tail.load() + std::min(kMaxBurst, mask_ / 2 + 1) - 1;
  const SlotWord word = Load(IndexOf(last));
  return LapsAhead(word, last) == 0 && word.state() == SlotState::kFree;
}

bool SlotRing::MayReceive() const {
  const uint64_t h = lane_->head.load();
  const SlotWord word = Load(IndexOf(h));
  return (LapsAhead(word, h) == 0 && word.state() == SlotState::kReady) ||
         (requeued_->load() & 1) != 0;
}

uint32_t SlotRing::ApproximateSize() const {
  const uint64_t head = lane_->head.load();
  uint64_t tail = lane_->tail.load();
  if (IsClaimed(Load(IndexOf(tail)), tail)) ++tail;
  return static_cast<uint32_t>(
      std::clamp<int64_t>(Distance(head, tail), 0, geometry_.slot_count));
}

SlotRing::Counts SlotRing::Count(bool has_skipped) const {
  uint64_t head = lane_->head.load();
  uint64_t tail = lane_->tail.load();
  // Claims that nobody has helped forward yet.
  SlotWord word = Load(IndexOf(tail));
  const bool is_being_written =
      LapsAhead(word, tail) == 0 && word.state() == SlotState::kWriting;
  if (!has_skipped && (requeued_->load() & 1) == 0) {
    if (IsClaimed(word, tail) && !is_being_written) ++tail;
    const int64_t size = Distance(head, tail);
    return {.sent = tail,
            .received = head,
            .pending = static_cast<uint64_t>(
                std::clamp<int64_t>(size, 0, geometry_.slot_count))};
  }
  if (IsClaimed(word, tail)) ++tail;
  word = Load(IndexOf(head));
  if (LapsAhead(word, head) > 0 ||
      (LapsAhead(word, head) == 0 && word.state() == SlotState::kReading)) {
    ++head;
  }
  uint64_t writing = 0, taken = 0, ready = 0;
  for (uint32_t i = 0; i <= mask_; ++i) {
    switch (Load(i).state()) {
      case SlotState::kWriting:
        ++writing;
        break;
      case SlotState::kReading:
        ++taken;
        break;
      case SlotState::kRequeued:
        ++taken;
        ++ready;
        break;
      case SlotState::kReady:
        ++ready;
        break;
      default:
        break;
    }
  }
  return {.sent = tail - writing, .received = head - taken, .pending = ready};
}

}  // namespace ipc::mqueue

#include "ipc/mqueue/slot_ring.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>

namespace ipc::mqueue {
namespace {

// Each step that does not end an operation means that somebody else made
// progress, or that the segment is damaged. Nobody is that unlucky.
constexpr int kMaxSteps = 1 << 20;

// Positions grow for ever; their difference is what has a sign.
int64_t Distance(uint64_t from, uint64_t to) {
  return static_cast<int64_t>(to - from);
}

}  // namespace

SlotRing::SlotRing(std::byte* segment, const Geometry& geometry)
    : geometry_(geometry),
      mask_(geometry.slot_count - 1),
      log2_slots_(std::countr_zero(geometry.slot_count)),
      lap_shift_(32 - geometry.lap_bits),
      stride_(geometry.slot_stride),
      header_(reinterpret_cast<Header*>(segment)),
      slots_(segment + geometry.slots_offset),
      participants_(reinterpret_cast<ParticipantTable::Word*>(
                        segment + geometry.participants_offset),
                    geometry.participants) {}

SlotRing::Outcome SlotRing::BeginSend(Participant self, Claim* claim) {
  std::atomic<uint64_t>& tail = header_->tail;
  for (int step = 0; step < kMaxSteps; ++step) {
    if (IsClosed()) return Outcome::kClosed;
    const uint64_t t = tail.load();
    const uint32_t i = IndexOf(t);
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
          Help(tail, t);
          *claim = {i, mine};
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
    *claim = {i, word};
    return ahead == -1 ? FullBehind(t, *claim) : Outcome::kCorrupt;
  }
  return Outcome::kCorrupt;
}

// The ring is full unless nobody will ever come back to the slot in question.
SlotRing::Outcome SlotRing::FullBehind(uint64_t tail, const Claim& seen) const {
  switch (seen.word.state()) {
    case SlotState::kReading:
    case SlotState::kRequeued:
      return Outcome::kWouldBlock;
    case SlotState::kWriting:
    case SlotState::kReady: {
      // The head cannot have passed it, unless it has changed meanwhile.
      const uint64_t head = header_->head.load();
      if (Distance(head, tail - geometry_.slot_count) < 0 &&
          Load(seen.slot) == seen.word) {
        return Outcome::kCorrupt;
      }
      return Outcome::kWouldBlock;
    }
    default:
      return Outcome::kCorrupt;
  }
}

int SlotRing::ExchangeCpu(const Claim& claim) {
  SlotHeader& header = slot(claim.slot);
  const int last = header.cpu;
  header.cpu = static_cast<uint16_t>(sched_getcpu() + 1);
  return last - 1;
}

void SlotRing::Fill(const Claim& claim, absl::Span<const std::byte> message) {
  SlotHeader& header = slot(claim.slot);
  header.length = static_cast<uint32_t>(message.size());
  header.type = 0;
  // An empty Span may have no data at all, which memcpy does not like.
  if (!message.empty()) {
    std::memcpy(reinterpret_cast<std::byte*>(&header) + sizeof(header),
                message.data(), message.size());
  }
}

bool SlotRing::CommitSend(const Claim& claim) {
  if (!Change(claim.slot, claim.word, claim.word.To(SlotState::kReady))) {
    return false;
  }
  header_->receivers.Ring();
  return true;
}

SlotRing::Outcome SlotRing::BeginReceive(Participant self, Claim* claim) {
  std::atomic<uint64_t>& head = header_->head;
  for (int step = 0; step < kMaxSteps; ++step) {
    if ((header_->shared.requeued.load() & 1) != 0 &&
        TakeRequeued(self, claim)) {
      return Outcome::kOk;
    }
    const uint64_t h = head.load();
    const uint32_t i = IndexOf(h);
    const SlotWord word = Load(i);
    const int32_t ahead = LapsAhead(word, h);
    if (ahead > 0) {
      Help(head, h);
      continue;
    }
    if (ahead < 0) {
      if (head.load() != h) continue;
      *claim = {i, word};
      // A whole lap taken, and this one message not done with: as good as
      // empty. Nobody else can be here.
      if (ahead == -1 && word.state() == SlotState::kReading) {
        return Outcome::kWouldBlock;
      }
      if (ahead == -1 && word.state() == SlotState::kRequeued) {
        // Its reaper has not announced it yet.
        if (TakeRequeued(self, claim)) return Outcome::kOk;
        continue;
      }
      return Outcome::kCorrupt;
    }
    switch (word.state()) {
      case SlotState::kReady:
      case SlotState::kRequeued: {
        const SlotWord mine = word.To(SlotState::kReading, self);
        if (!Change(i, word, mine)) continue;
        Help(head, h);
        *claim = {i, mine};
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
        *claim = {i, word};
        return Outcome::kWouldBlock;
      case SlotState::kFree:
        if (head.load() != h) continue;
        *claim = {i, word};
        if (!IsClosed()) return EmptyAt(h, *claim);
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

// The ring is empty unless head and tail have been moved apart.
SlotRing::Outcome SlotRing::EmptyAt(uint64_t head, const Claim& seen) const {
  const int64_t beyond = Distance(head, header_->tail.load());
  if (beyond >= -1 && beyond <= 0) return Outcome::kWouldBlock;
  // Normal if this position has been claimed since we looked at it, else the
  // tail cannot be past it, nor more than the one unhelped claim behind.
  if (Load(seen.slot) == seen.word && header_->head.load() == head) {
    return Outcome::kCorrupt;
  }
  return Outcome::kWouldBlock;
}

// Closed, and no position will be used from here on. It is drained when no
// message is left that could come back, because its consumer dies.
SlotRing::Outcome SlotRing::AtEnd(Participant self, Claim* claim) {
  for (uint32_t i = 0; i <= mask_; ++i) {
    const SlotWord word = Load(i);
    if (word.state() == SlotState::kReading) {
      *claim = {i, word};
      return Outcome::kWouldBlock;
    }
    if (word.state() == SlotState::kRequeued) {
      return TakeRequeued(self, claim) ? Outcome::kOk : Outcome::kWouldBlock;
    }
  }
  return Outcome::kClosed;
}

absl::Span<const std::byte> SlotRing::Contents(const Claim& claim) const {
  SlotHeader& header = slot(claim.slot);
  // Loaded once (volatile): a hostile peer may change it after the check.
  const uint32_t length = *const_cast<volatile uint32_t*>(&header.length);
  if (length > geometry_.message_bytes) return {};
  return {reinterpret_cast<const std::byte*>(&header + 1), length};
}

bool SlotRing::CommitReceive(const Claim& claim) {
  if (!Change(claim.slot, claim.word, NextLap(claim.word))) return false;
  header_->senders.Ring();
  return true;
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
    header_->shared.recycled.fetch_add(1, std::memory_order_relaxed);
    header_->senders.Ring();
  }
  Help(header_->head, position);
}

bool SlotRing::TakeRequeued(Participant self, Claim* claim) {
  uint64_t version = header_->shared.requeued.load();
  // From the oldest: the slot at the head holds, if anything is requeued in it,
  // the message of a whole lap ago.
  const uint32_t first = IndexOf(header_->head.load());
  for (uint32_t n = 0; n <= mask_; ++n) {
    const uint32_t i = (first + n) & mask_;
    const SlotWord word = Load(i);
    if (word.state() != SlotState::kRequeued) continue;
    const SlotWord mine = word.To(SlotState::kReading, self);
    if (Change(i, word, mine)) {
      // Relaxed: a statistic orders nothing.
      header_->shared.redelivered.fetch_add(1, std::memory_order_relaxed);
      *claim = {i, mine};
      return true;
    }
  }
  // Nothing left. Fails if more came while we looked.
  if ((version & 1) != 0) {
    header_->shared.requeued.compare_exchange_strong(version,
                                                     version & ~uint64_t{1});
  }
  return false;
}

// The version is raised first: a consumer that saw the flag with the old one
// cannot clear it any more. Called after the slot is REQ; one killed in between
// has not freed the dead one's index yet, so the next reaper calls it again.
void SlotRing::AnnounceRequeued() {
  header_->shared.requeued.fetch_add(2);
  header_->shared.requeued.fetch_or(1);
  header_->receivers.Ring();
}

void SlotRing::Sweep(Participant dead) {
  for (uint32_t i = 0; i <= mask_; ++i) {
    const SlotWord word = Load(i);
    if (!word.IsOwnedBy(dead)) continue;
    // The word has only the low bits of an epoch. While the participant is
    // marked with the whole of it, no later one with the same bits exists.
    if (!participants_.IsMarkedDead(dead)) return;
    if (word.state() == SlotState::kReading) {
      Change(i, word, word.To(SlotState::kRequeued));
    } else if (Change(i, word, word.To(SlotState::kSkip))) {
      // Relaxed: a statistic orders nothing.
      header_->shared.skipped.fetch_add(1, std::memory_order_relaxed);
    }
  }
  // Relaxed: a statistic orders nothing.
  header_->shared.reaped.fetch_add(1, std::memory_order_relaxed);
  AnnounceRequeued();
  header_->receivers.RingAll();
  header_->senders.RingAll();
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
    header_->shared.skipped.fetch_add(1, std::memory_order_relaxed);
  } else {
    return false;
  }
  return true;
}

void SlotRing::Close() {
  header_->shared.closed.store(1);
  header_->receivers.RingAll();
  header_->senders.RingAll();
}

bool SlotRing::MaySend() const {
  const uint64_t t = header_->tail.load();
  const SlotWord word = Load(IndexOf(t));
  return LapsAhead(word, t) == 0 && word.state() == SlotState::kFree;
}

bool SlotRing::MayReceive() const {
  const uint64_t h = header_->head.load();
  const SlotWord word = Load(IndexOf(h));
  return (LapsAhead(word, h) == 0 && word.state() == SlotState::kReady) ||
         (header_->shared.requeued.load() & 1) != 0;
}

uint32_t SlotRing::ApproximateSize() const {
  const uint64_t head = header_->head.load();
  const int64_t size = Distance(head, header_->tail.load());
  return static_cast<uint32_t>(
      std::clamp<int64_t>(size, 0, geometry_.slot_count));
}

SlotRing::Counts SlotRing::Count() const {
  uint64_t head = header_->head.load();
  uint64_t tail = header_->tail.load();
  // Claims that nobody has helped forward yet.
  SlotWord word = Load(IndexOf(tail));
  if (LapsAhead(word, tail) == 0 && word.state() != SlotState::kFree &&
      word.state() != SlotState::kEnd) {
    ++tail;
  }
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
  const auto& shared = header_->shared;
  return {.sent = tail - writing - shared.skipped.load(),
          .received = head - taken - shared.recycled.load(),
          .pending = ready};
}

}  // namespace ipc::mqueue

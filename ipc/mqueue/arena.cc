#include "ipc/mqueue/arena.h"

#include <algorithm>

namespace ipc::mqueue {
namespace {

constexpr uint32_t kNoHint = ~uint32_t{0};

// Of this size, or of half of the arena. Less than half of this would stay in
// the second-level caches of two CPUs, and is not taken in turn.
constexpr uint64_t kWindowBytes = uint64_t{4} << 20;

uint32_t WindowOf(const Geometry& geometry) {
  const uint64_t half = uint64_t{geometry.block_count} / 2;
  const uint64_t window = std::min(half, kWindowBytes / geometry.block_bytes);
  return window * geometry.block_bytes < kWindowBytes / 2
             ? 0
             : static_cast<uint32_t>(window);
}

}  // namespace

Arena::Arena(std::byte* segment, const Geometry& geometry)
    : count_(geometry.block_count),
      block_bytes_(geometry.block_bytes),
      message_bytes_(geometry.message_bytes),
      window_(geometry.block_count == 0 ? 0 : WindowOf(geometry)),
      blocks_(segment + geometry.blocks_offset),
      data_(segment + geometry.data_offset),
      hints_(reinterpret_cast<Header*>(segment)->free_hints) {}

// A PART of a run that is not in use any more is free: its head has moved on,
// and never comes back to this generation.
bool Arena::IsFree(BlockWord word) const {
  if (word.state() == BlockState::kFree) return true;
  if (word.state() != BlockState::kPart) return false;
  if (word.head() >= count_) return true;
  const BlockWord head = Load(word.head());
  return !head.IsInUse() || head.generation() != word.generation();
}

// At first at multiples of the length, which keeps runs of one length from
// leaving gaps too short for another, then anywhere.
//
// Within the window in turn, if the next one is free, so that a block has left
// both sides' caches when it is written again: who writes to lines that its
// peer still shares waits for each. Else what was freed last, which leaves the
// rest of the arena whole for long messages; else whatever there is, from where
// something was found before.
bool Arena::Allocate(Participant self, uint64_t bytes, BlockName* block) {
  const uint32_t blocks = BlocksFor(bytes);
  uint32_t next;
  if (const uint32_t runs = window_ / blocks; runs > 0) {
    // Relaxed, also below: where to look first changes nothing but the time it
    // takes.
    uint32_t n = turn_.load(std::memory_order_relaxed) / blocks;
    if (n >= runs) n = 0;
    const uint32_t following = n + 1 < runs ? (n + 1) * blocks : 0;
    turn_.store(following, std::memory_order_relaxed);
    // For the next time: its last user was another process.
    __builtin_prefetch(&header(following), 1);
    __builtin_prefetch(data({following, 0}), 1);
    if (TakeRun(self, n * blocks, blocks, block, &next)) return true;
  }
  for (int attempt = 0; attempt < 2; ++attempt) {
    const uint32_t hint = TakeHint();
    if (hint == kNoHint) break;
    if (hint % blocks == 0 && hint <= count_ - blocks &&
        TakeRun(self, hint, blocks, block, &next)) {
      return true;
    }
  }
  // From here on all are looked at, or one is found.
  ClearHints();
  const uint32_t aligned = count_ / blocks;
  uint32_t n = cursor_.load(std::memory_order_relaxed) / blocks;
  for (uint32_t seen = 0; seen < aligned; ++seen, ++n) {
    if (n >= aligned) n = 0;
    if (!TakeRun(self, n * blocks, blocks, block, &next)) continue;
    cursor_.store((n + 1) * blocks, std::memory_order_relaxed);
    return true;
  }
  if (blocks == 1) return false;
  for (uint32_t i = 0; i <= count_ - blocks; i = next) {
    if (TakeRun(self, i, blocks, block, &next)) return true;
  }
  return false;
}

uint32_t Arena::BlocksFor(uint64_t bytes) const {
  return static_cast<uint32_t>(
      std::max<uint64_t>((bytes + block_bytes_ - 1) / block_bytes_, 1));
}

bool Arena::CouldAllocate(uint64_t bytes, uint32_t lane) const {
  const uint32_t blocks = BlocksFor(bytes);
  uint32_t run = 0;
  for (uint32_t i = 0; i < count_; ++i) {
    BlockWord word = Load(i);
    uint32_t head = i;
    bool is_free = IsFree(word);
    if (!is_free && word.state() == BlockState::kPart) {
      head = word.head();
      word = Load(head);
    }
    is_free = is_free || ((word.state() == BlockState::kQueued ||
                           word.state() == BlockState::kRedeliver) &&
                          this->lane(head) <= lane);
    run = is_free ? run + 1 : 0;
    if (run == blocks) return true;
  }
  return false;
}

// The head first, which names the owner of all, then the rest in order: of two
// that want the same block, the one that has the later blocks goes on.
bool Arena::TakeRun(Participant self, uint32_t first, uint32_t blocks,
                    BlockName* block, uint32_t* next) {
  *next = first + 1;
  const BlockWord seen = Load(first);
  if (!IsFree(seen)) return false;
  for (uint32_t i = 1; i < blocks; ++i) {
    if (IsFree(Load(first + i))) continue;
    *next = first + i + 1;
    return false;
  }
  // Relaxed: the number alone matters, and it is published by the word.
  const uint32_t generation =
      header(first).generation.fetch_add(1, std::memory_order_relaxed) + 1;
  const BlockWord mine = BlockWord::Of(BlockState::kLoaned, generation, self);
  if (!Change(first, seen, mine)) return false;
  for (uint32_t i = 1; i < blocks; ++i) {
    const BlockWord part = Load(first + i);
    if (IsFree(part) &&
        Change(first + i, part, BlockWord::PartOf(first, generation))) {
      continue;
    }
    Change(first, mine, BlockWord::Of(BlockState::kFree, generation));
    *next = first + i + 1;
    return false;
  }
  *block = {first, generation};
  return true;
}

void Arena::Describe(BlockName block, uint64_t length, uint16_t type,
                     uint16_t lane) {
  BlockHeader& h = header(block.index);
  h.length = length;
  h.type = type;
  h.lane.store(lane, std::memory_order_relaxed);  // see lane()
}

Arena::Message Arena::Contents(BlockName block) const {
  // Loaded once (volatile): a hostile peer may change it after the check.
  const volatile BlockHeader& h = header(block.index);
  const uint64_t length = h.length;
  const uint16_t type = h.type;
  const uint64_t behind = uint64_t{count_ - block.index} * block_bytes_;
  if (length > std::min(behind, message_bytes_)) return {{}, 0};
  return {{data(block), length}, type};
}

bool Arena::Enqueue(Participant self, BlockName block) {
  return Change(block,
                BlockWord::Of(BlockState::kLoaned, block.generation, self),
                BlockWord::Of(BlockState::kQueued, block.generation));
}

bool Arena::Hold(Participant self, BlockName block) {
  return Change(block, BlockWord::Of(BlockState::kQueued, block.generation),
                BlockWord::Of(BlockState::kHeld, block.generation, self));
}

bool Arena::Requeue(Participant dead, BlockName block) {
  return Change(block, BlockWord::Of(BlockState::kHeld, block.generation, dead),
                BlockWord::Of(BlockState::kQueued, block.generation));
}

bool Arena::GiveBack(Participant self, BlockName block) {
  return Change(block, BlockWord::Of(BlockState::kHeld, block.generation, self),
                BlockWord::Of(BlockState::kRedeliver, block.generation));
}

bool Arena::Free(BlockName block, BlockWord from) {
  if (!Change(block, from,
              BlockWord::Of(BlockState::kFree, block.generation))) {
    return false;
  }
  PutHint(block.index);
  return true;
}

bool Arena::FreeQueued(BlockName block) {
  return Free(block, BlockWord::Of(BlockState::kQueued, block.generation));
}

bool Arena::FreeLoaned(Participant self, BlockName block) {
  return Free(block,
              BlockWord::Of(BlockState::kLoaned, block.generation, self));
}

bool Arena::FreeHeld(Participant self, BlockName block) {
  return Free(block, BlockWord::Of(BlockState::kHeld, block.generation, self));
}

bool Arena::TakeReturned(Participant self, BlockName block) {
  return Change(block, BlockWord::Of(BlockState::kRedeliver, block.generation),
                BlockWord::Of(BlockState::kHeld, block.generation, self));
}

bool Arena::FreeReturned(BlockName block) {
  return Free(block, BlockWord::Of(BlockState::kRedeliver, block.generation));
}

void Arena::Sweep(Participant dead, bool explicit_ack, ParticipantTable table) {
  for (uint32_t i = 0; i < count_; ++i) {
    const BlockWord word = Load(i);
    if (!word.IsOwnedBy(dead)) continue;
    // As in SlotRing::Sweep: the word has only the low bits of the epoch.
    if (!table.IsMarkedDead(dead)) return;
    const bool redeliver = explicit_ack && word.state() == BlockState::kHeld;
    Change(i, word,
           BlockWord::Of(redeliver ? BlockState::kRedeliver : BlockState::kFree,
                         word.generation()));
  }
}

// A hint lost or given twice costs only time, so both sides go without a loop:
// each process goes its own way round the array, and whoever frees overwrites.
bool Arena::HasHint() const {
  for (uint32_t i = 0; i < kFreeHints; ++i) {
    if (hints_[i].load(std::memory_order_relaxed) != 0) return true;
  }
  return false;
}

void Arena::ClearHints() {
  for (uint32_t i = 0; i < kFreeHints; ++i) {
    if (hints_[i].load(std::memory_order_relaxed) != 0) {
      hints_[i].store(0, std::memory_order_relaxed);
    }
  }
}

uint32_t Arena::TakeHint() {
  for (uint32_t i = 0; i < kFreeHints; ++i) {
    // Relaxed, also below: the block's word, which is CASed next, decides.
    if (hints_[i].load(std::memory_order_relaxed) == 0) continue;
    const uint32_t hint = hints_[i].exchange(0, std::memory_order_relaxed);
    if (hint != 0 && hint <= count_) return hint - 1;
  }
  return kNoHint;
}

void Arena::PutHint(uint32_t index) {
  for (uint32_t i = 0; i < kFreeHints; ++i) {
    if (hints_[i].load(std::memory_order_relaxed) != 0) continue;
    hints_[i].store(index + 1, std::memory_order_relaxed);
    return;
  }
}

}  // namespace ipc::mqueue

// The 64-bit word in which all of an arena block's life takes place.
//
//    63          32 31          12 11        3 2       0
//   +--------------+--------------+-----------+---------+
//   |  generation  | owner epoch  |   owner   |  state  |
//   |              | (low bits)   |   index   |         |
//   +--------------+--------------+-----------+---------+
//   |  generation  |         head block       |  PART   |
//   +--------------+--------------------------+---------+
//
// A message takes a run of consecutive blocks. Only the word of the first one,
// the head, lives; those behind it say PART, with the head's index and
// generation, and are free again as soon as the head is not in use any more
// under this generation. So a run of any length changes hands, and is freed, by
// one CAS.
//
//   FREE or stale PART -CAS sender---> LOANED(me)   under a new generation
//   LOANED(me)         -CAS----------> QUEUED       then its slot: READY
//   LOANED(me)         -CAS----------> FREE         a loan not sent
//   QUEUED             -CAS receiver-> HELD(me)     its slot being READING(me)
//   HELD(me)           -CAS----------> FREE         acknowledged, or released
//   HELD(me)           -CAS----------> REDELIVER    given back (explicit ack)
//   REDELIVER          -CAS receiver-> HELD(me)     belongs to no slot
//   REDELIVER          -CAS sender---> FREE         overwritten by its policy
//
// and when the owner is dead, by a reaper, slots before blocks:
//
//   slot WRITING(dead)   its block QUEUED     -> FREE     then the slot -> SKIP
//   slot READING(dead)   its block HELD(dead) -> QUEUED   then the slot -> REQ
//   LOANED(dead)       -CAS reaper---> FREE
//   HELD(dead)         -CAS reaper---> FREE, or with explicit ack REDELIVER
//
// Each allocation has a generation of its own (BlockHeader::generation), so
// whoever kept {block, generation}, in a slot or in a register, can tell
// whether it is still what was meant. All zero is FREE.
#ifndef IPC_MQUEUE_BLOCK_WORD_H_
#define IPC_MQUEUE_BLOCK_WORD_H_

#include <cstdint>

#include "ipc/base/participants.h"
#include "ipc/mqueue/slot_word.h"

namespace ipc::mqueue {

enum class BlockState : uint32_t {
  kFree = 0,
  kLoaned = 1,     // being filled by its sender
  kQueued = 2,     // belongs to the slot that names it
  kHeld = 3,       // being read by its receiver
  kRedeliver = 4,  // its receiver died or gave it back; belongs to no slot
  kPart = 5,       // not the first of its run
};

class BlockWord {
 public:
  static constexpr int kOwnerBits = SlotWord::kIndexBits + SlotWord::kEpochBits;
  static constexpr uint32_t kMaxBlocks = 1u << 24;
  static_assert(kMaxBlocks <= 1u << kOwnerBits);

  constexpr explicit BlockWord(uint64_t bits) : bits_(bits) {}
  static constexpr BlockWord Of(BlockState state, uint32_t generation) {
    return BlockWord(uint64_t{generation} << 32 | static_cast<uint32_t>(state));
  }
  static constexpr BlockWord Of(BlockState state, uint32_t generation,
                                Participant owner) {
    return BlockWord(
        Of(state, generation).bits_ |
        ((uint64_t{owner.epoch} << SlotWord::kIndexBits | owner.index) &
         kMiddleMask)
            << SlotWord::kStateBits);
  }
  static constexpr BlockWord PartOf(uint32_t head, uint32_t generation) {
    return BlockWord(Of(BlockState::kPart, generation).bits_ |
                     uint64_t{head} << SlotWord::kStateBits);
  }

  constexpr uint64_t bits() const { return bits_; }
  // For a word that a hostile peer wrote, perhaps none of the enumerators.
  constexpr BlockState state() const {
    return static_cast<BlockState>(bits_ & ((1u << SlotWord::kStateBits) - 1));
  }
  constexpr uint32_t generation() const {
    return static_cast<uint32_t>(bits_ >> 32);
  }
  constexpr uint32_t head() const { return middle(); }
  constexpr uint32_t owner_index() const {
    return middle() & (SlotWord::kMaxParticipants - 1);
  }
  constexpr bool IsOwned() const {
    return state() == BlockState::kLoaned || state() == BlockState::kHeld;
  }
  constexpr bool IsOwnedBy(Participant participant) const {
    return IsOwned() && *this == Of(state(), generation(), participant);
  }
  // Whether it is the head of a run in use.
  constexpr bool IsInUse() const {
    return state() >= BlockState::kLoaned && state() <= BlockState::kRedeliver;
  }

  friend constexpr bool operator==(BlockWord, BlockWord) = default;

 private:
  static constexpr uint64_t kMiddleMask = (uint64_t{1} << kOwnerBits) - 1;

  constexpr uint32_t middle() const {
    return static_cast<uint32_t>(bits_ >> SlotWord::kStateBits & kMiddleMask);
  }

  uint64_t bits_;
};

}  // namespace ipc::mqueue

#endif  // IPC_MQUEUE_BLOCK_WORD_H_

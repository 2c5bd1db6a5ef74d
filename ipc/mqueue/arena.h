// The arena of a queue: memory for long messages, in runs of blocks, each of
// which changes hands by one CAS; see block_word.h for the states.
//
// Invariants, for peers that keep to the rules:
// 1. A run in use is what the words of its head and of the PARTs behind it say,
//    as long as the head has the PARTs' generation. No two runs overlap, since
//    each block is claimed by a CAS on its own word.
// 2. The data of a run is written only by the owner of LOANED, and read only by
//    the owner of HELD.
// 3. No generation of a block comes twice (in 2^32 allocations), so a CAS that
//    names one never hits another message.
//
// For peers that do not: every index and length is checked, every loop bounded.
//
// Memory order: everything is seq_cst, but for what says otherwise; a CAS costs
// the same on x86-64, and the doorbells ask for it.
//
// Thread safety: all members may be called by any thread of any process.
#ifndef IPC_MQUEUE_ARENA_H_
#define IPC_MQUEUE_ARENA_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "ipc/base/participants.h"
#include "ipc/mqueue/block_word.h"
#include "ipc/mqueue/layout.h"

namespace ipc::mqueue {

class Arena {
 public:
  // `segment` is mapped and as large as the checked `geometry` says.
  Arena(std::byte* segment, const Geometry& geometry);

  uint32_t block_count() const { return count_; }

  // Takes a run for `bytes`, which becomes LOANED. False if there is none now;
  // to find that out it looks at all blocks.
  // REQUIRES: no more bytes than the arena has.
  bool Allocate(Participant self, uint64_t bytes, BlockName* block);
  // Whether a block has been freed that nobody's Allocate has looked at, or
  // been told of, since: a cheap answer, to ask for often, for a moment. Not of
  // what reapers free, and it may be lost.
  bool HasHint() const;
  // Whether there would be a run for `bytes` if all messages of `lane` and
  // below were dropped that nobody has in his hands.
  bool CouldAllocate(uint64_t bytes, uint32_t lane) const;

  // What is told to the receiver. REQUIRES: LOANED by the caller.
  void Describe(BlockName block, uint64_t length, uint16_t type, uint16_t lane);
  // The lane that was told for what is in block `i`.
  uint32_t lane(uint32_t i) const {
    // Relaxed: published by the word, or of a message that is gone.
    return header(i).lane.load(std::memory_order_relaxed);
  }
  struct Message {
    absl::Span<std::byte> data;  // data() == nullptr: the length is rubbish
    uint16_t type;
  };
  // REQUIRES: LOANED or HELD by the caller; the message is as described.
  Message Contents(BlockName block) const;
  // The memory of a run of `bytes`. REQUIRES: LOANED by the caller.
  std::byte* data(BlockName block) const {
    return data_ + uint64_t{block.index} * block_bytes_;
  }

  // The transitions; false if the block is not what was said, because a reaper
  // or a rogue took it away. All accept any BlockName.
  bool Enqueue(Participant self, BlockName block);  // LOANED -> QUEUED
  bool Hold(Participant self, BlockName block);     // QUEUED -> HELD
  bool Requeue(Participant dead, BlockName block);  // HELD -> QUEUED
  bool FreeQueued(BlockName block);                 // QUEUED -> FREE
  bool FreeLoaned(Participant self, BlockName block);
  bool FreeHeld(Participant self, BlockName block);
  bool GiveBack(Participant self, BlockName block);      // HELD -> REDELIVER
  bool TakeReturned(Participant self, BlockName block);  // REDELIVER -> HELD
  bool FreeReturned(BlockName block);                    // REDELIVER -> FREE

  // Takes away what the dead one holds; its slots must have been swept before.
  void Sweep(Participant dead, bool explicit_ack, ParticipantTable table);

  // The word of block `i`, which is less than block_count().
  BlockWord Load(uint32_t i) const { return BlockWord(header(i).word.load()); }

 private:
  BlockHeader& header(uint32_t i) const {
    return reinterpret_cast<BlockHeader*>(blocks_)[i];
  }
  bool Change(uint32_t i, BlockWord from, BlockWord to) {
    uint64_t expected = from.bits();
    return header(i).word.compare_exchange_strong(expected, to.bits());
  }
  bool Change(BlockName block, BlockWord from, BlockWord to) {
    return block.index < count_ && Change(block.index, from, to);
  }
  bool Free(BlockName block, BlockWord from);
  bool IsFree(BlockWord word) const;
  uint32_t BlocksFor(uint64_t bytes) const;
  // `*next`: behind the first block that was in the way.
  bool TakeRun(Participant self, uint32_t first, uint32_t blocks,
               BlockName* block, uint32_t* next);
  uint32_t TakeHint();
  void ClearHints();
  void PutHint(uint32_t index);

  const uint32_t count_;
  const uint32_t block_bytes_;
  const uint64_t message_bytes_;
  const uint32_t window_;  // of how many blocks Allocate goes in turn
  std::byte* const blocks_;
  std::byte* const data_;
  std::atomic<uint32_t>* const hints_;
  // Where the window, and where the next search of all, goes on. Relaxed: only
  // guesses.
  std::atomic<uint32_t> turn_{0};
  std::atomic<uint32_t> cursor_{0};
};

}  // namespace ipc::mqueue

#endif  // IPC_MQUEUE_ARENA_H_

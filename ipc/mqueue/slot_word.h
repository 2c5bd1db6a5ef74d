// The 64-bit word in which all of a slot's life takes place.
//
//    63          32 31          12 11        3 2       0
//   +--------------+--------------+-----------+---------+
//   |     lap      | owner epoch  |   owner   |  state  |
//   |              | (low bits)   |   index   |         |
//   +--------------+--------------+-----------+---------+
//
// A slot i of N is used for the positions i, N+i, 2N+i, ...; its lap is
// position / N, modulo 2^lap_bits. The owner is zero but in WRITING and
// READING.
//
//   FREE(L)          -CAS producer-> WRITING(L, me)
//   WRITING(L, me)   -CAS----------> READY(L)         the send commits here
//   READY|REQ(L)     -CAS consumer-> READING(L, me)
//   READING(L, me)   -CAS----------> FREE(L+1)        the receive commits here
//   READING(L, me)   -CAS----------> REQ(L)           put back by its consumer
//   WRITING(L, dead) -CAS reaper---> SKIP(L) -CAS anybody-> FREE(L+1)
//   READING(L, dead) -CAS reaper---> REQ(L)
//   FREE(L)          -CAS consumer-> END(L)           no position from here on
//
// All zero is FREE(0): a new segment needs no further initialisation.
#ifndef IPC_MQUEUE_SLOT_WORD_H_
#define IPC_MQUEUE_SLOT_WORD_H_

#include <cstdint>

#include "ipc/base/participants.h"

namespace ipc::mqueue {

enum class SlotState : uint32_t {
  kFree = 0,
  kWriting = 1,   // claimed by a producer, which copies its message in
  kReady = 2,     // a message
  kReading = 3,   // claimed by a consumer, which copies the message out
  kRequeued = 4,  // a message whose consumer died or put it back; behind head
  kSkip = 5,      // its producer died; nothing was sent
  kEnd = 6,       // the queue was closed before this position was used
};

class SlotWord {
 public:
  static constexpr int kStateBits = 3;
  static constexpr int kIndexBits = 9;
  static constexpr int kEpochBits = 20;
  static constexpr int kMinLapBits = 4;  // for tests, to come round soon
  static constexpr int kMaxLapBits = 32;
  static_assert(kStateBits + kIndexBits + kEpochBits + kMaxLapBits == 64);

  static constexpr uint32_t kMaxParticipants = 1u << kIndexBits;

  constexpr explicit SlotWord(uint64_t bits) : bits_(bits) {}
  static constexpr SlotWord Of(SlotState state, uint32_t lap) {
    return SlotWord(uint64_t{lap} << kLapShift | static_cast<uint32_t>(state));
  }

  constexpr uint64_t bits() const { return bits_; }
  // For a word that a hostile peer wrote, perhaps none of the enumerators.
  constexpr SlotState state() const {
    return static_cast<SlotState>(bits_ & ((1u << kStateBits) - 1));
  }
  constexpr uint32_t lap() const {
    return static_cast<uint32_t>(bits_ >> kLapShift);
  }
  constexpr uint32_t owner_index() const {
    return static_cast<uint32_t>(bits_ >> kStateBits) & (kMaxParticipants - 1);
  }
  constexpr bool IsOwned() const {
    return state() == SlotState::kWriting || state() == SlotState::kReading;
  }
  constexpr bool IsOwnedBy(Participant participant) const {
    return IsOwned() && (bits_ & kOwnerMask) == OwnerBits(participant);
  }

  // The same lap in another state, without an owner or with one.
  constexpr SlotWord To(SlotState state) const { return Of(state, lap()); }
  constexpr SlotWord To(SlotState state, Participant owner) const {
    return SlotWord(Of(state, lap()).bits_ | OwnerBits(owner));
  }

  friend constexpr bool operator==(SlotWord, SlotWord) = default;

 private:
  static constexpr int kLapShift = kStateBits + kIndexBits + kEpochBits;
  static constexpr uint64_t kOwnerMask =
      ((uint64_t{1} << kLapShift) - 1) & ~((uint64_t{1} << kStateBits) - 1);

  static constexpr uint64_t OwnerBits(Participant participant) {
    return (uint64_t{participant.epoch} << (kStateBits + kIndexBits) |
            uint64_t{participant.index} << kStateBits) &
           kOwnerMask;
  }

  uint64_t bits_;
};

}  // namespace ipc::mqueue

#endif  // IPC_MQUEUE_SLOT_WORD_H_

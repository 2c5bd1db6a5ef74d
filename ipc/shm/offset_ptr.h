// A pointer for memory that each process maps somewhere else: how many bytes
// its T is behind the start of an Arena. All zero is null.
//
// Example:
//
//   struct Node {
//     int64_t key;
//     OffsetPtr<Node> next;
//   };
//
// It is only a number: it may lie in a Value, an Array or a message and be
// copied like any number, and it leads nowhere by itself. Arena::Guard turns it
// into an address, and checks that this is in the Arena.
//
// Thread safety: as of a number.
#ifndef IPC_SHM_OFFSET_PTR_H_
#define IPC_SHM_OFFSET_PTR_H_

#include <cstdint>

namespace ipc::shm {

template <typename T>
struct OffsetPtr {
  uint64_t offset = 0;

  explicit operator bool() const { return offset != 0; }
  friend bool operator==(OffsetPtr, OffsetPtr) = default;
};

}  // namespace ipc::shm

#endif  // IPC_SHM_OFFSET_PTR_H_

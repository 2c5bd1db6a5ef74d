// Several copies of one value and a version that says which of them is valid,
// so that a writer killed half-way has spoilt nothing and readers never wait.
//
//   version v -> copy v % kCopies is valid
//   writer:  fill copy (v+1) % kCopies, then store version v+1: the commit
//   reader:  s = version; copy out s % kCopies; t = version;
//            good unless t - s >= kCopies - 1
//
// A plain seqlock ("Can Seqlocks Get Along with Programming Language Memory
// Models?", H.-J. Boehm, 2012) would leave readers spinning for ever on the odd
// count of a dead writer. Here they retry only when writers have lapped them.
// With two copies one store in the meantime would be a lap, and a reader that
// is slower than a writer without pause might never get through; four leave it
// the time of two whole stores.
//
// Memory orders. Fill v+1 begins with a release fence, after the store of
// version v by this writer or, through the lock, an earlier one; a reader's
// copy ends with an acquire fence. So a reader that has copied a word of it
// sees version v or a later one afterwards. Had it begun with s in the same
// copy, s = v+1 - n*kCopies, it finds t - s >= kCopies - 1 and retries.
// Conversely the reader's acquire load of s, paired with the release store of
// the version, makes it see the whole of fill s or something later.
//
//   copies: kCopies * CopySize(bytes) bytes, 64-byte aligned, zero at first
#ifndef IPC_SHM_VERSIONED_COPIES_H_
#define IPC_SHM_VERSIONED_COPIES_H_

#include <cstddef>
#include <cstdint>

#include "ipc/shm/version_signal.h"

namespace ipc::shm::internal {

// A view of the memory, which it does not own. Whatever version a peer stores,
// nothing beyond the copies is touched.
class VersionedCopies {
 public:
  static constexpr size_t kCopies = 4;
  static_assert((kCopies & (kCopies - 1)) == 0,
                "the order of copies must survive the version's wrap-around");

  // What one copy of a value of `bytes` bytes takes: cache lines of its own.
  static constexpr size_t CopySize(size_t bytes) {
    return (bytes + 63) / 64 * 64;
  }

  VersionedCopies(std::byte* copies, size_t bytes, VersionSignal& signal)
      : copies_(copies), bytes_(bytes), signal_(&signal) {}

  // Copies the valid one to `to`, which has room for the value. Returns false
  // if writers have lapped it each of very many times, so that a hostile one
  // cannot keep it for ever; `to` is then garbage.
  bool Load(void* to) const;
  // REQUIRES: no other Store meanwhile; the caller holds the writers' lock.
  void Store(const void* from);

 private:
  std::byte* CopyOf(uint64_t version) const {
    return copies_ + version % kCopies * CopySize(bytes_);
  }

  std::byte* copies_;
  size_t bytes_;
  VersionSignal* signal_;
};

}  // namespace ipc::shm::internal

#endif  // IPC_SHM_VERSIONED_COPIES_H_

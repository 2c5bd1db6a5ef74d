// Copies of memory that another process may be writing to at the same time, for
// who finds out afterwards whether that was so, and then throws the copy away.
//
// The language does not allow that between threads of one program; C++26 may
// (P1478, "Byte-wise atomic memcpy"). Until then these two functions are the
// one place that does it. They are of a library of their own, so the compiler
// of the caller cannot read the memory twice, or assume anything of it. On all
// machines a copy is some mix of the bytes before and after, and no worse.
// Hidden from ThreadSanitizer, which sees the threads of one process only and
// could not know that.
#ifndef IPC_SHM_RACY_COPY_H_
#define IPC_SHM_RACY_COPY_H_

#include <cstddef>

namespace ipc::shm::internal {

// Copies to private memory. Ends with an acquire fence: what the caller loads
// after it was loaded after every byte of the copy.
void LoadRacily(void* to, const void* from, size_t bytes);

// Copies from private memory. Begins with a release fence: who sees one byte of
// it, by LoadRacily, then sees whatever the caller stored before.
void StoreRacily(void* to, const void* from, size_t bytes);

// The fence that StoreRacily begins with, for stores of the caller's own.
void ReleaseFence();

}  // namespace ipc::shm::internal

#endif  // IPC_SHM_RACY_COPY_H_

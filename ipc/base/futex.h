// The futex system call for words in shared memory (never FUTEX_PRIVATE_FLAG),
// with absolute deadlines. See futex(2) and FUTEX_WAIT_BITSET there.
//
// A waiter must read the word, decide from it to wait, and pass the value it
// read; the kernel compares again and refuses to sleep if the word has changed,
// so a wake-up that comes in between is not lost.
#ifndef IPC_BASE_FUTEX_H_
#define IPC_BASE_FUTEX_H_

#include <atomic>
#include <cstdint>

#include "ipc/base/deadline.h"

namespace ipc {

// Sleeps while `word` holds `expected`, until a FutexWake or the deadline.
// Returns false only if the deadline passed; true may be spurious (a signal, a
// stale wake-up, a word that had changed already), so the caller looks again.
bool FutexWait(const std::atomic<uint32_t>& word, uint32_t expected,
               Deadline deadline);

// Wakes at most `count` sleepers on `word`; returns how many there were.
int FutexWake(const std::atomic<uint32_t>& word, int count);

}  // namespace ipc

#endif  // IPC_BASE_FUTEX_H_

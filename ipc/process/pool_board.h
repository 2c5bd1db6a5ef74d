// What a ProcessPool and its workers share besides their two queues: which task
// is whose, and how often it was begun. Made by the pool, in anonymous memory
// (ipc/base/memory.h), zeroed; workers map it.
//
//   | WorkerEntry 0 | ... | WorkerEntry workers-1 | TaskWord 0 | ...
//
// A task is a message in the queue of tasks, PoolHeader and input, and a word
// of the board, which the header names:
//
//    63              9   8    7          0
//   +-----------------+------+-----------+
//   |       id        | done | attempts  |     zero: no task
//   +-----------------+------+-----------+
//
//   0 -> (id, 0)                by the pool, before it sends the message
//   (id, n) -> (id, n+1)        by a worker that is about to run it
//   (id, n) -> (id, done, n)    by a worker that has sent the result
//   any -> 0                    by the pool, when the task has a result
//
// Invariants:
// 1. A worker begins a task only by that CAS, so a message whose task is
//    settled or done is not run again when it comes again, and no task is begun
//    more often than it may be.
// 2. A worker says in its entry what it runs before it counts the attempt, and
//    until it has said "done". So each attempt is in a worker's entry, or is
//    done, or the pool has found it in the entry of a dead worker, which it
//    then clears. If a task has used up its attempts and is in no entry, and
//    then is not done either, it never will be: the pool settles it.
//
// All atomics are seq_cst: this is once or twice for each task.
#ifndef IPC_PROCESS_POOL_BOARD_H_
#define IPC_PROCESS_POOL_BOARD_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "ipc/base/memory.h"

namespace ipc::process {

// Before the input of a task, and before its result.
struct PoolHeader {
  uint64_t id;
  uint32_t word;  // index of the task's word
  int32_t code;   // of a result: absl::StatusCode
};
static_assert(sizeof(PoolHeader) == 16);

struct alignas(64) WorkerEntry {
  std::atomic<uint64_t> running;  // id, or 0; by the worker
  std::atomic<int64_t> since_ns;  // CLOCK_MONOTONIC; before `running`
};
static_assert(sizeof(WorkerEntry) == 64);

class PoolBoard {
 public:
  static constexpr uint64_t kMaxAttempts = 255;  // and the mask of the field

  static size_t SizeBytes(size_t workers, size_t words) {
    return workers * sizeof(WorkerEntry) + words * sizeof(uint64_t);
  }

  PoolBoard() = default;
  PoolBoard(Mapping mapping, size_t workers)
      : mapping_(std::move(mapping)), workers_(workers) {}

  WorkerEntry& worker(size_t index) const {
    return reinterpret_cast<WorkerEntry*>(mapping_.data())[index];
  }
  std::atomic<uint64_t>& word(size_t index) const {
    return reinterpret_cast<std::atomic<uint64_t>*>(
        mapping_.data() + workers_ * sizeof(WorkerEntry))[index];
  }

  // Counts one more attempt at task `id`. False if it is settled or done, or
  // was begun `max_attempts` times.
  bool Begin(size_t index, uint64_t id, uint64_t max_attempts) const {
    uint64_t seen = word(index).load();
    return seen >> kIdShift == id && (seen & kDone) == 0 &&
           (seen & kMaxAttempts) < max_attempts &&
           // Nobody else has the message, so only the pool can be in the way.
           word(index).compare_exchange_strong(seen, seen + 1);
  }
  // Unless it is settled.
  void Finish(size_t index, uint64_t id) const {
    uint64_t seen = word(index).load();
    while (seen >> kIdShift == id &&
           !word(index).compare_exchange_weak(seen, seen | kDone)) {
    }
  }
  void Open(size_t index, uint64_t id) const {
    word(index).store(id << kIdShift);
  }
  void Settle(size_t index) const { word(index).store(0); }

  // Whether nobody will send a result any more (invariant 2).
  bool IsLost(size_t index, uint64_t id, uint64_t max_attempts) const {
    if ((word(index).load() & kMaxAttempts) < max_attempts) return false;
    for (size_t i = 0; i < workers_; ++i) {
      if (worker(i).running == id) return false;
    }
    return (word(index).load() & kDone) == 0;
  }

 private:
  static constexpr uint64_t kDone = uint64_t{1} << 8;
  static constexpr int kIdShift = 9;

  Mapping mapping_;
  size_t workers_ = 0;
};

}  // namespace ipc::process

#endif  // IPC_PROCESS_POOL_BOARD_H_

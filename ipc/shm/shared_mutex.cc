#include "ipc/shm/shared_mutex.h"

#include <bit>

#include "absl/strings/str_cat.h"
#include "ipc/base/futex.h"
#include "ipc/base/spin_wait.h"
#include "ipc/shm/layout.h"

namespace ipc::shm {
namespace {

using internal::RobustLock;

constexpr uint32_t kWaiting = uint32_t{1} << 31;
constexpr absl::Duration kPark = absl::Milliseconds(10);
// How often one whose time is over tries again where others were faster.
constexpr int kLateRounds = 64;

constexpr uint32_t EpochOf(uint64_t word) {
  return static_cast<uint32_t>(word >> 32);
}
constexpr uint32_t CountOf(uint64_t word) {
  return static_cast<uint32_t>(word) & ~kWaiting;
}

const std::atomic<uint32_t>& LowerHalf(const std::atomic<uint64_t>& word) {
  static_assert(std::endian::native == std::endian::little);
  return reinterpret_cast<const std::atomic<uint32_t>&>(word);
}

}  // namespace

absl::StatusOr<SharedMutex> SharedMutex::Attach(Segment segment,
                                                size_t offset) {
  const absl::StatusOr<std::byte*> object =
      Find(segment, offset, SizeBytes(), "SharedMutex",
           internal::LayoutHash("SharedMutex", Segment::kMaxParticipants));
  if (!object.ok()) return object.status();
  return SharedMutex(std::move(segment), *object);
}

absl::StatusOr<SharedMutex::Guard> SharedMutex::Lock(absl::Duration timeout) {
  absl::Status status = AcquireFor(timeout);
  if (!status.ok()) return status;
  return Guard(this);
}

absl::StatusOr<SharedMutex::SharedGuard> SharedMutex::LockShared(
    absl::Duration timeout) {
  absl::Status status = AcquireSharedFor(timeout);
  if (!status.ok()) return status;
  return SharedGuard(this);
}

absl::Status SharedMutex::AcquireFor(absl::Duration timeout) {
  const absl::StatusOr<Participant> self = segment().Self();
  if (!self.ok()) return self.status();
  const Deadline deadline = Deadline::After(timeout);
  RobustLock& writer = header()->writer;
  if (!writer.TryAcquire(*self)) {
    const absl::Status status =
        writer.Acquire(segment(), *self, deadline).status();
    if (!status.ok()) return status;
  }
  absl::Status status = AwaitReaders(deadline);
  // Of a writer that died before us, nobody has been told yet.
  if (!status.ok()) {
    writer.Release(segment(), *self, writer.IsDirty(), RobustLock::Wake::kAll);
  }
  return status;
}

absl::Status SharedMutex::Unlock() {
  Participant self;
  if (!segment().GetSelf(&self)) return NotHeld();
  RobustLock& writer = header()->writer;
  if (writer.TryRelease(self)) return absl::OkStatus();
  // Readers that wait do not take the lock, and so wake nobody.
  if (writer.Release(segment(), self, /*dirty=*/false,
                     RobustLock::Wake::kAll)) {
    return absl::OkStatus();
  }
  return NotHeld();
}

absl::Status SharedMutex::AcquireSharedFor(absl::Duration timeout) {
  const absl::StatusOr<Participant> self = segment().Self();
  if (!self.ok()) return self.status();
  if (Enter(*self)) return absl::OkStatus();
  const Deadline deadline = Deadline::After(timeout);
  absl::Status status;
  for (int late = 0;;) {
    status = header()->writer.AwaitFree(segment(), deadline);
    if (!status.ok() || Enter(*self)) break;
    // Writers come one after the other.
    if (deadline.HasPassed() && ++late > kLateRounds) {
      status = absl::DeadlineExceededError(
          absl::StrCat("locking in shm segment, fd ", fd(),
                       ": writers take it all the time; wait longer"));
      break;
    }
  }
  header()->writer.EndWait();
  return status;
}

absl::Status SharedMutex::UnlockShared() {
  Participant self;
  if (!segment().GetSelf(&self) || !Leave(self)) return NotHeld();
  return absl::OkStatus();
}

// False if there is a writer, which sees that we are not there. REQUIRES:
// `self` is this process.
bool SharedMutex::Enter(Participant self) {
  internal::SharedMutexHeader& header = *this->header();
  const auto is_taken = [&](std::memory_order order) {
    return (header.writer.word.load(order) & RobustLock::kOwner) != 0;
  };
  // Relaxed: it saves the rest, no more.
  if (is_taken(std::memory_order_relaxed)) return false;
  // Seq_cst: a writer takes the lock, then reads reader_end and the counts; we
  // write both, then read the lock. In the one order of all these either the
  // writer sees our count or we see that the lock is taken. (If the count of an
  // earlier reader has raised reader_end, we have read that, and so it is
  // before ours in that order.)
  uint32_t end = header.reader_end.load();
  while (end <= self.index &&
         !header.reader_end.compare_exchange_weak(end, self.index + 1)) {
  }
  std::atomic<uint64_t>& word = header.readers[self.index].word;
  uint64_t seen = word.load(std::memory_order_relaxed);
  // What a dead process has left at this index is of another epoch:
  // overwritten. So is nonsense.
  while (!word.compare_exchange_weak(
      seen, EpochOf(seen) == self.epoch && CountOf(seen) != kWaiting - 1
                ? seen + 1
                : uint64_t{self.epoch} << 32 | 1)) {
  }
  if (!is_taken(std::memory_order_seq_cst)) return true;
  Leave(self);
  return false;
}

// False if nobody in this process reads.
bool SharedMutex::Leave(Participant self) {
  std::atomic<uint64_t>& word = header()->readers[self.index].word;
  uint64_t seen = word.load(std::memory_order_relaxed);
  uint64_t next;
  do {
    if (EpochOf(seen) != self.epoch || CountOf(seen) == 0) return false;
    next = CountOf(seen) == 1 ? uint64_t{self.epoch} << 32 : seen - 1;
    // Release pairs with the acquire in AwaitReader: what we have read was read
    // before the writer changes it.
  } while (!word.compare_exchange_weak(seen, next, std::memory_order_release,
                                       std::memory_order_relaxed));
  if (CountOf(seen) == 1 && (seen & kWaiting) != 0) {
    FutexWake(LowerHalf(word), 1);
  }
  return true;
}

// REQUIRES: this process has the writers' lock.
absl::Status SharedMutex::AwaitReaders(Deadline deadline) {
  // A peer may have written anything.
  uint32_t end = header()->reader_end.load();
  if (end > Segment::kMaxParticipants) end = Segment::kMaxParticipants;
  for (uint32_t index = 0; index < end; ++index) {
    if (absl::Status status = AwaitReader(index, deadline); !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

absl::Status SharedMutex::AwaitReader(uint32_t index, Deadline deadline) {
  std::atomic<uint64_t>& word = header()->readers[index].word;
  // Acquire, as part of seq_cst, pairs with the release in Leave.
  uint64_t seen = word.load();
  int late = 0;
  while (CountOf(seen) != 0) {
    if (!deadline.HasPassed()) {
      static SpinHistory history;
      SpinWait spin(&history, /*peer_cpu=*/-1);
      while (CountOf(seen) != 0 && spin.Next()) {
        seen = word.load(std::memory_order_acquire);
      }
      if (CountOf(seen) == 0) {
        spin.Succeeded();
        break;
      }
    }
    if (segment().IsDead({index, EpochOf(seen)})) {
      // Relaxed: it ended before the kernel said so. Should it fail, another
      // process has this index now.
      if (word.compare_exchange_strong(seen, uint64_t{EpochOf(seen)} << 32,
                                       std::memory_order_relaxed)) {
        break;
      }
      if (!deadline.HasPassed() || ++late <= kLateRounds) continue;
    }
    if (deadline.HasPassed()) {
      return absl::DeadlineExceededError(absl::StrCat(
          "locking in shm segment, fd ", fd(), ": participant ", index,
          " (epoch ", EpochOf(seen),
          ") is alive and goes on reading; wait longer or look at it"));
    }
    // Relaxed: the kernel compares again, and the bit carries no data.
    if ((seen & kWaiting) == 0 &&
        !word.compare_exchange_strong(seen, seen | kWaiting,
                                      std::memory_order_relaxed)) {
      continue;
    }
    FutexWait(LowerHalf(word), static_cast<uint32_t>(seen | kWaiting),
              Deadline::Earlier(deadline, Deadline::After(kPark)));
    seen = word.load(std::memory_order_acquire);
  }
  return absl::OkStatus();
}

absl::Status SharedMutex::NotHeld() const {
  return absl::FailedPreconditionError(
      absl::StrCat("unlocking a SharedMutex in shm segment, fd ", fd(),
                   ": this process does not hold it so"));
}

}  // namespace ipc::shm

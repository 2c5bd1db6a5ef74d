#include "ipc/shm/recursive_mutex.h"

#include <pthread.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "ipc/base/deadline.h"
#include "ipc/shm/layout.h"

namespace ipc::shm {
namespace {

// PID_MAX_LIMIT of the kernel is 2^22, and ids of threads are below.
constexpr int kThreadBits = 22;
static_assert(Segment::kMaxParticipants <= uint32_t{1} << (32 - kThreadBits));

// gettid(2) is a system call; asked for once a thread, and again by a forked
// child, whose only thread has another id than the one it is a copy of.
uint32_t ThisThread() {
  static thread_local uint32_t thread = 0;
  if (thread == 0) [[unlikely]] {
    static const int installed = pthread_atfork(
        nullptr, nullptr, [] { thread = static_cast<uint32_t>(gettid()); });
    (void)installed;
    thread = static_cast<uint32_t>(gettid());
  }
  return thread;
}

uint64_t NameOfThisThread(Participant self) {
  return uint64_t{self.epoch} << 32 | uint64_t{self.index} << kThreadBits |
         ThisThread();
}

}  // namespace

absl::StatusOr<RecursiveMutex> RecursiveMutex::Attach(Segment segment,
                                                      size_t offset) {
  const absl::StatusOr<std::byte*> object =
      Find(segment, offset, SizeBytes(), "RecursiveMutex",
           internal::LayoutHash("RecursiveMutex", 0));
  if (!object.ok()) return object.status();
  return RecursiveMutex(std::move(segment), *object);
}

absl::StatusOr<RecursiveMutex::Guard> RecursiveMutex::Lock(
    absl::Duration timeout) {
  absl::Status status = AcquireFor(timeout);
  if (!status.ok()) return status;
  return Guard(this);
}

// Relaxed throughout: `thread` and `depth` are read to some purpose only by the
// thread that wrote them, and passed on to others by the lock.
bool RecursiveMutex::IsHeldByThisThread(Participant self) const {
  return header()->thread.load(std::memory_order_relaxed) ==
             NameOfThisThread(self) &&
         // A peer may have scribbled over it.
         header()->lock.IsHeldBy(self);
}

absl::Status RecursiveMutex::AcquireFor(absl::Duration timeout) {
  const absl::StatusOr<Participant> self = segment().Self();
  if (!self.ok()) return self.status();
  internal::RecursiveMutexHeader& header = *this->header();
  if (IsHeldByThisThread(*self)) {
    const uint32_t depth = header.depth.load(std::memory_order_relaxed);
    if (depth == UINT32_MAX) {
      return absl::ResourceExhaustedError(
          absl::StrCat("locking a RecursiveMutex in shm segment, fd ", fd(),
                       ": this thread has locked it too often"));
    }
    header.depth.store(depth + 1, std::memory_order_relaxed);
    return absl::OkStatus();
  }
  if (!header.lock.TryAcquire(*self)) {
    const absl::Status status =
        header.lock.Acquire(segment(), *self, Deadline::After(timeout))
            .status();
    if (!status.ok()) return status;
  }
  // In this order: whoever finds its name finds its depth.
  header.depth.store(1, std::memory_order_relaxed);
  header.thread.store(NameOfThisThread(*self), std::memory_order_relaxed);
  return absl::OkStatus();
}

absl::Status RecursiveMutex::Unlock() {
  Participant self;
  if (!segment().GetSelf(&self) || !IsHeldByThisThread(self)) return NotHeld();
  const uint32_t depth = header()->depth.load(std::memory_order_relaxed);
  if (depth > 1) {
    header()->depth.store(depth - 1, std::memory_order_relaxed);
  } else {
    Release(self);
  }
  return absl::OkStatus();
}

uint32_t RecursiveMutex::depth() const {
  Participant self;
  if (!segment().GetSelf(&self) || !IsHeldByThisThread(self)) return 0;
  return header()->depth.load(std::memory_order_relaxed);
}

uint32_t RecursiveMutex::UnlockAll() {
  const uint32_t depth = this->depth();
  Participant self;
  if (depth != 0 && segment().GetSelf(&self)) Release(self);
  return depth;
}

absl::Status RecursiveMutex::Relock(uint32_t depth) {
  absl::Status status = AcquireFor(absl::InfiniteDuration());
  if (status.ok()) header()->depth.store(depth, std::memory_order_relaxed);
  return status;
}

void RecursiveMutex::Release(Participant self) {
  // Before the lock: afterwards it is another one's to write.
  header()->thread.store(0, std::memory_order_relaxed);
  if (header()->lock.TryRelease(self)) return;
  header()->lock.Release(segment(), self, /*dirty=*/false);
}

absl::Status RecursiveMutex::NotHeld() const {
  return absl::FailedPreconditionError(
      absl::StrCat("unlocking a RecursiveMutex in shm segment, fd ", fd(),
                   ": this thread does not hold it"));
}

}  // namespace ipc::shm

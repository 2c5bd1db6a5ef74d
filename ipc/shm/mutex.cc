#include "ipc/shm/mutex.h"

#include "absl/strings/str_cat.h"
#include "ipc/base/deadline.h"
#include "ipc/shm/layout.h"

namespace ipc::shm {

absl::StatusOr<Mutex> Mutex::Attach(Segment segment, size_t offset) {
  const absl::StatusOr<std::byte*> object = Find(
      segment, offset, SizeBytes(), "Mutex", internal::LayoutHash("Mutex", 0));
  if (!object.ok()) return object.status();
  return Mutex(std::move(segment), *object);
}

absl::Status Mutex::AcquireContended(absl::Duration timeout) {
  const absl::StatusOr<Participant> self = segment().Self();
  if (!self.ok()) return self.status();
  return lock_word()
      .Acquire(segment(), *self, Deadline::After(timeout))
      .status();
}

absl::Status Mutex::UnlockContended() {
  Participant self;
  if (segment().GetSelf(&self) &&
      lock_word().Release(segment(), self, /*dirty=*/false)) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      absl::StrCat("unlocking a Mutex in shm segment, fd ", fd(),
                   ": this process does not hold it"));
}

}  // namespace ipc::shm

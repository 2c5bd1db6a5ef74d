#include "ipc/shm/shared_memory.h"

#include <errno.h>
#include <sys/random.h>
#include <sys/stat.h>

#include <cstdint>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "ipc/base/named_memory.h"
#include "ipc/base/posix_error.h"
#include "ipc/base/unique_fd.h"

namespace ipc::shm {
namespace {

absl::string_view Bare(absl::string_view name) {
  return absl::StripPrefix(name, "/");
}

absl::StatusOr<std::string> RandomName() {
  uint64_t number;
  const ssize_t n =
      RetryOnEintr([&] { return getrandom(&number, sizeof(number), 0); });
  if (n != sizeof(number)) {
    return PosixError(n < 0 ? errno : EIO, "making a name of shared memory");
  }
  return absl::StrCat("psm_", absl::Hex(number, absl::kZeroPad16));
}

}  // namespace

absl::StatusOr<std::shared_ptr<SharedMemory::State>> SharedMemory::Map(
    int fd, absl::string_view name, Access access) {
  struct stat stat;
  if (fstat(fd, &stat) != 0) {
    return PosixError(errno, absl::StrCat("fstat of shared memory ", name));
  }
  if (stat.st_size == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("shared memory ", name,
                     " has no bytes: if its creator is about to "
                     "size it, open it again later, otherwise unlink it"));
  }
  const auto size = static_cast<size_t>(stat.st_size);
  // Python's memory is sparse: without this a page would be allocated, or not,
  // by the first access to it, even if it is for reading.
  if (absl::Status status = AllocateFile(fd, size); !status.ok()) {
    return Annotate(status, absl::StrCat("shared memory ", name));
  }
  absl::StatusOr<Mapping> mapping = Mapping::Create(fd, size, access);
  if (!mapping.ok()) {
    return Annotate(mapping.status(), absl::StrCat("shared memory ", name));
  }
  auto state = std::make_shared<State>();
  state->name = std::string(Bare(name));
  state->access = access;
  state->mapping = *std::move(mapping);
  state->device = stat.st_dev;
  state->inode = stat.st_ino;
  return state;
}

absl::StatusOr<SharedMemory> SharedMemory::Create(absl::string_view name,
                                                  size_t size,
                                                  const Fill& fill) {
  const bool random = name.empty();
  if (!random) {
    if (absl::Status status = CheckMemoryName(name); !status.ok()) {
      return status;
    }
  }
  if (size == 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "creating shared memory \"", name, "\" of 0 bytes: take at least 1"));
  }
  const absl::StatusOr<UniqueFd> fd = CreateUnnamedFile(size);
  if (!fd.ok()) return fd.status();
  absl::StatusOr<std::shared_ptr<State>> state =
      Map(fd->get(), name, Access::kReadWrite);
  if (!state.ok()) return state.status();
  SharedMemory memory(*state);
  if (fill != nullptr) fill(memory.bytes());

  absl::Status status;
  do {
    if (random) {
      absl::StatusOr<std::string> made = RandomName();
      if (!made.ok()) return made.status();
      (*state)->name = *std::move(made);
    }
    status = PublishMemory(fd->get(), memory.name());
  } while (random && absl::IsAlreadyExists(status));
  if (!status.ok()) return status;
  return memory;
}

absl::StatusOr<SharedMemory> SharedMemory::Open(absl::string_view name,
                                                Access access) {
  const absl::StatusOr<UniqueFd> fd = OpenNamedMemory(name);
  if (!fd.ok()) return fd.status();
  absl::StatusOr<std::shared_ptr<State>> state = Map(fd->get(), name, access);
  if (!state.ok()) return state.status();
  return SharedMemory(*std::move(state));
}

absl::Status SharedMemory::Unlink(absl::string_view name) {
  return UnlinkNamedMemory(name);
}

absl::Status SharedMemory::Unlink() const {
  if (unlinked()) {
    return absl::NotFoundError(absl::StrCat(
        "removing shared memory ", name(),
        ": its name is gone or other memory's; if a Python that had attached "
        "to it has ended, that one may have removed it"));
  }
  return UnlinkNamedMemory(name());
}

bool SharedMemory::unlinked() const {
  struct stat stat;
  return lstat(absl::StrCat("/dev/shm/", name()).c_str(), &stat) != 0 ||
         stat.st_dev != state_->device || stat.st_ino != state_->inode;
}

}  // namespace ipc::shm

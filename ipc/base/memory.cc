#include "ipc/base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "ipc/base/posix_error.h"

namespace ipc {

absl::StatusOr<SegmentPrefix> ReadSegmentPrefix(int fd) {
  SegmentPrefix prefix;
  const ssize_t n =
      RetryOnEintr([&] { return pread(fd, &prefix, sizeof(prefix), 0); });
  if (n < 0) return PosixError(errno, absl::StrCat("reading segment, fd ", fd));
  if (n != sizeof(prefix) || prefix.magic != SegmentPrefix::kMagic) {
    return absl::InvalidArgumentError(
        absl::StrCat("fd ", fd,
                     " is not a Parley segment: pass the descriptor of a shm "
                     "Segment or a mqueue Queue"));
  }
  return prefix;
}

absl::Status CheckFitsMachine(absl::string_view name, size_t size) {
  struct sysinfo machine;
  if (sysinfo(&machine) != 0) return PosixError(errno, "sysinfo");
  const uint64_t total =
      (uint64_t{machine.totalram} + machine.totalswap) * machine.mem_unit;
  if (size <= total) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("allocating ", size, " bytes for ", name,
                   ": this machine has only ", total));
}

namespace {

absl::StatusOr<UniqueFd> CreateMemfd(absl::string_view name, size_t size,
                                     unsigned flags) {
  if (absl::Status status = CheckFitsMachine(name, size); !status.ok()) {
    return status;
  }
  const std::string c_name(name);
  UniqueFd fd(
      memfd_create(c_name.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING | flags));
  if (!fd.ok()) return PosixError(errno, absl::StrCat("memfd_create ", name));
  // Unlike ftruncate, allocates: a lack of memory shows here, not as SIGBUS at
  // some later store.
  if (RetryOnEintr([&] { return fallocate(fd.get(), 0, 0, size); }) != 0) {
    return PosixError(errno,
                      absl::StrCat("allocating ", size, " bytes for ", name));
  }
  if (fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0) {
    return PosixError(errno, absl::StrCat("sealing the size of ", name));
  }
  return fd;
}

}  // namespace

absl::StatusOr<UniqueFd> CreateMemory(absl::string_view name, size_t size) {
  return CreateMemfd(name, size, 0);
}

absl::StatusOr<UniqueFd> CreateHugeMemory(absl::string_view name, size_t size) {
  // Of whatever size a huge page is here, which is what stat says of an empty
  // file of them.
  UniqueFd probe(memfd_create("parley-probe", MFD_CLOEXEC | MFD_HUGETLB));
  struct stat stat;
  if (!probe.ok() || fstat(probe.get(), &stat) != 0) {
    return absl::UnavailableError("this machine has no huge pages");
  }
  const size_t page = static_cast<size_t>(stat.st_blksize);
  if (size > SIZE_MAX - page) return CheckFitsMachine(name, SIZE_MAX);
  absl::StatusOr<UniqueFd> fd =
      CreateMemfd(name, (size + page - 1) / page * page, MFD_HUGETLB);
  if (fd.ok()) return fd;
  return absl::UnavailableError(absl::StrCat(
      "too few free huge pages (vm.nr_hugepages): ", fd.status().message()));
}

namespace {

bool IsInDevShm(const struct stat& file) {
  struct stat directory;
  return stat("/dev/shm", &directory) == 0 && directory.st_dev == file.st_dev;
}

}  // namespace

absl::StatusOr<size_t> SizeOfMemory(int fd) {
  struct stat stat;
  if (fstat(fd, &stat) != 0) {
    return PosixError(errno, absl::StrCat("fstat of fd ", fd));
  }
  if (!S_ISREG(stat.st_mode)) {
    return absl::InvalidArgumentError(
        absl::StrCat("fd ", fd, " is not shared memory"));
  }
  const int seals = fcntl(fd, F_GET_SEALS);
  // A file of a file system takes no seals: EINVAL, or on tmpfs F_SEAL_SEAL,
  // as a memfd that was made without them, which is on no mounted one.
  if (seals >= 0 && (seals & F_SEAL_SHRINK) == 0) {
    if (IsInDevShm(stat)) {
      if (stat.st_uid == geteuid() && (stat.st_mode & 077) == 0) {
        return static_cast<size_t>(stat.st_size);
      }
      return absl::FailedPreconditionError(
          absl::StrCat("fd ", fd,
                       " is a file of /dev/shm that others than this user "
                       "could truncate: it must belong to user ",
                       geteuid(), " and have mode 0600"));
    }
    return absl::FailedPreconditionError(
        absl::StrCat("the size of fd ", fd,
                     " is not sealed: create it by CreateMemory or seal it "
                     "(F_SEAL_SHRINK)"));
  }
  return static_cast<size_t>(stat.st_size);
}

Mapping::~Mapping() {
  if (data_ != nullptr) munmap(data_, size_);
}

absl::StatusOr<Mapping> Mapping::Create(int fd, size_t size, Access access) {
  const int protection =
      access == Access::kRead ? PROT_READ : PROT_READ | PROT_WRITE;
  void* data = mmap(nullptr, size, protection, MAP_SHARED, fd, 0);
  if (data == MAP_FAILED) {
    return PosixError(errno,
                      absl::StrCat("mapping ", size, " bytes of fd ", fd));
  }
  return Mapping(static_cast<std::byte*>(data), size);
}

}  // namespace ipc

#include "ipc/base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/base/unique_fd.h"

namespace ipc {
namespace {

using ::testing::HasSubstr;

constexpr size_t kSize = 10'000;

UniqueFd Memory(size_t size = kSize) {
  absl::StatusOr<UniqueFd> fd = CreateMemory("memory_test", size);
  EXPECT_TRUE(fd.ok()) << fd.status();
  return fd.ok() ? *std::move(fd) : UniqueFd();
}

TEST(CreateMemoryTest, IsZeroedAndOfTheRightSize) {
  const UniqueFd fd = Memory();
  EXPECT_EQ(SizeOfMemory(fd.get()).value(), kSize);
  absl::StatusOr<Mapping> mapping = Mapping::Create(fd.get(), kSize);
  ASSERT_TRUE(mapping.ok()) << mapping.status();
  for (size_t i = 0; i < kSize; ++i) {
    ASSERT_EQ(mapping->data()[i], std::byte{0}) << i;
  }
}

TEST(CreateMemoryTest, IsCloseOnExec) {
  EXPECT_EQ(fcntl(Memory().get(), F_GETFD), FD_CLOEXEC);
}

// What makes SIGBUS impossible: nobody who holds the descriptor can take pages
// away from under a mapping.
TEST(CreateMemoryTest, NobodyCanResizeIt) {
  const UniqueFd fd = Memory();
  EXPECT_EQ(ftruncate(fd.get(), 0), -1);
  EXPECT_EQ(errno, EPERM);
  EXPECT_EQ(ftruncate(fd.get(), 2 * kSize), -1);
  EXPECT_EQ(errno, EPERM);
  EXPECT_EQ(fcntl(fd.get(), F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW);
}

TEST(CreateMemoryTest, IsAllocatedFromTheStart) {
  const UniqueFd fd = Memory();
  struct stat stat;
  ASSERT_EQ(fstat(fd.get(), &stat), 0);
  EXPECT_GE(stat.st_blocks * 512, static_cast<blkcnt_t>(kSize));
}

// Once, this made the kernel's OOM killer go through the machine. The limit on
// file sizes is there for the day that CreateMemory asks the kernel again.
TEST(CreateMemoryTest, MoreThanTheMachineHasIsRefused) {
  const pid_t pid = fork();
  ASSERT_GE(pid, 0);
  if (pid == 0) {
    signal(SIGXFSZ, SIG_IGN);
    const rlimit limit = {.rlim_cur = 1 << 20, .rlim_max = 1 << 20};
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0) _exit(1);
    for (const size_t size : {size_t{1} << 60, SIZE_MAX}) {
      const absl::Status status = CreateMemory("too_much", size).status();
      if (!absl::IsResourceExhausted(status)) _exit(2);
      if (!absl::StrContains(status.message(), "too_much")) _exit(3);
    }
    _exit(0);
  }
  int status;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST(CreateMemoryTest, NamesNeedNotBeUnique) {
  const UniqueFd a = Memory();
  const UniqueFd b = Memory();
  EXPECT_TRUE(a.ok() && b.ok());
}

TEST(CreateMemoryTest, InHugePagesIfThereAreAny) {
  const absl::StatusOr<UniqueFd> fd = CreateHugeMemory("test", 5000);
  if (!fd.ok()) {
    EXPECT_EQ(fd.status().code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(std::string(fd.status().message()),
                ::testing::HasSubstr("huge"));
    return;
  }
  const absl::StatusOr<size_t> size = SizeOfMemory(fd->get());
  ASSERT_TRUE(size.ok()) << size.status();
  EXPECT_GE(*size, size_t{1} << 16);
  auto mapping = Mapping::Create(fd->get(), *size, Mapping::Access::kReadWrite);
  ASSERT_TRUE(mapping.ok()) << mapping.status();
  EXPECT_EQ(mapping->data()[*size - 1], std::byte{0});
}

TEST(SizeOfMemoryTest, RefusesAnAnonymousFileThatCouldShrink) {
  const UniqueFd fd(
      memfd_create("memory_test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(ftruncate(fd.get(), kSize), 0);
  const absl::Status status = SizeOfMemory(fd.get()).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  ASSERT_EQ(fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK), 0);
  EXPECT_EQ(SizeOfMemory(fd.get()).value(), kSize);
}

TEST(SizeOfMemoryTest, RefusesWhatIsNotMemory) {
  int fds[2];
  ASSERT_EQ(pipe2(fds, O_CLOEXEC), 0);
  const UniqueFd reader(fds[0]);
  const UniqueFd writer(fds[1]);
  EXPECT_TRUE(absl::IsInvalidArgument(SizeOfMemory(reader.get()).status()));
  EXPECT_FALSE(SizeOfMemory(-1).ok());
}

TEST(MappingTest, TwoMappingsShowTheSameBytes) {
  const UniqueFd fd = Memory();
  absl::StatusOr<Mapping> a = Mapping::Create(fd.get(), kSize);
  absl::StatusOr<Mapping> b =
      Mapping::Create(fd.get(), kSize, Mapping::Access::kRead);
  ASSERT_TRUE(a.ok() && b.ok());
  EXPECT_NE(a->data(), b->data());
  std::memcpy(a->data(), "shared", 6);
  EXPECT_EQ(std::memcmp(b->data(), "shared", 6), 0);
}

TEST(MappingTest, OutlivesTheDescriptor) {
  UniqueFd fd = Memory();
  absl::StatusOr<Mapping> mapping = Mapping::Create(fd.get(), kSize);
  ASSERT_TRUE(mapping.ok()) << mapping.status();
  fd.Reset();
  std::memset(mapping->data(), 1, kSize);
}

TEST(MappingTest, ReadAccessIsReadOnly) {
  const UniqueFd fd = Memory();
  absl::StatusOr<Mapping> mapping =
      Mapping::Create(fd.get(), kSize, Mapping::Access::kRead);
  ASSERT_TRUE(mapping.ok()) << mapping.status();
  // The kernel says so without a fault: it will not write there.
  const UniqueFd zero(open("/dev/zero", O_RDONLY | O_CLOEXEC));
  EXPECT_EQ(syscall(SYS_read, zero.get(), mapping->data(), 1), -1);
  EXPECT_EQ(errno, EFAULT);
}

TEST(MappingTest, MoveHandsOver) {
  const UniqueFd fd = Memory();
  Mapping a = *Mapping::Create(fd.get(), kSize);
  std::byte* const data = a.data();
  Mapping b(std::move(a));
  EXPECT_EQ(a.data(), nullptr);  // NOLINT(bugprone-use-after-move)
  EXPECT_EQ(a.size(), 0);
  EXPECT_EQ(b.data(), data);
  Mapping c;
  c = std::move(b);
  EXPECT_EQ(c.data(), data);
  EXPECT_EQ(c.size(), kSize);
}

TEST(MappingTest, OfNoDescriptorIsAnError) {
  const absl::Status status = Mapping::Create(-1, kSize).status();
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), HasSubstr("fd -1"));
}

TEST(SegmentPrefixTest, ReadsThePrefixAndLeavesTheOffset) {
  const UniqueFd fd = Memory();
  const SegmentPrefix written = {.magic = SegmentPrefix::kMagic,
                                 .kind = SegmentKind::kMqueue,
                                 .abi_major = 3,
                                 .abi_minor = 7};
  ASSERT_EQ(pwrite(fd.get(), &written, sizeof(written), 0),
            static_cast<ssize_t>(sizeof(written)));
  ASSERT_EQ(lseek(fd.get(), 5, SEEK_SET), 5);
  absl::StatusOr<SegmentPrefix> read = ReadSegmentPrefix(fd.get());
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->kind, SegmentKind::kMqueue);
  EXPECT_EQ(read->abi_major, 3);
  EXPECT_EQ(read->abi_minor, 7);
  EXPECT_EQ(lseek(fd.get(), 0, SEEK_CUR), 5);
}

TEST(SegmentPrefixTest, BeginsWithParleyInEveryHexDump) {
  const uint64_t magic = SegmentPrefix::kMagic;
  EXPECT_EQ(std::memcmp(&magic, "\0PARLEY\0", 8), 0);
}

TEST(SegmentPrefixTest, RefusesWhatIsNoSegment) {
  const UniqueFd zeros = Memory();
  absl::Status status = ReadSegmentPrefix(zeros.get()).status();
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("not a Parley segment"));

  const UniqueFd too_short = Memory(15);
  status = ReadSegmentPrefix(too_short.get()).status();
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;

  EXPECT_FALSE(ReadSegmentPrefix(-1).ok());
}

// A descriptor of another kind cannot even be read at an offset.
TEST(SegmentPrefixTest, APipeIsAnError) {
  int fds[2];
  ASSERT_EQ(pipe2(fds, O_CLOEXEC), 0);
  const UniqueFd reader(fds[0]);
  const UniqueFd writer(fds[1]);
  EXPECT_FALSE(ReadSegmentPrefix(reader.get()).ok());
}

}  // namespace
}  // namespace ipc

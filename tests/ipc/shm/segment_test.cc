#include "ipc/shm/segment.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/base/memory.h"
#include "ipc/base/unique_fd.h"
#include "ipc/shm/segment_layout.h"
#include "tests/testing/child.h"
#include "tests/testing/status_matchers.h"

namespace ipc::shm {
namespace {

using testing::Child;

using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::SizeIs;

UniqueFd Dup(int fd) { return UniqueFd(fcntl(fd, F_DUPFD_CLOEXEC, 0)); }

// A memfd of `size` bytes with `seals`, beginning as a copy of a good Segment's
// header for 64 bytes of user area, which `change` may spoil.
template <typename Change>
UniqueFd Forge(size_t size, int seals, Change change) {
  const Segment good = *Segment::CreateAnonymous(64);
  internal::SegmentHeader header;
  EXPECT_EQ(pread(good.fd(), &header, sizeof(header), 0), sizeof(header));
  change(header);
  UniqueFd fd(memfd_create("forged", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  EXPECT_EQ(pwrite(fd.get(), &header, sizeof(header), 0), sizeof(header));
  EXPECT_EQ(ftruncate(fd.get(), size), 0);
  EXPECT_EQ(fcntl(fd.get(), F_ADD_SEALS, seals), 0);
  return fd;
}

constexpr int kSealed = F_SEAL_SHRINK | F_SEAL_GROW;
constexpr size_t kGoodSize = internal::HeaderSize(256) + 64;
void Unchanged(internal::SegmentHeader&) {}

TEST(SegmentTest, StartsZeroed) {
  const absl::StatusOr<Segment> segment = Segment::CreateAnonymous(1000);
  ASSERT_THAT(segment, IsOk());
  EXPECT_THAT(segment->bytes(), SizeIs(1000));
  EXPECT_THAT(segment->bytes(), Each(std::byte{0}));
  EXPECT_TRUE(segment->writable());
  EXPECT_EQ(reinterpret_cast<uintptr_t>(segment->bytes().data()) %
                Segment::kAlignment,
            0u);
  EXPECT_NE(fcntl(segment->fd(), F_GETFD) & FD_CLOEXEC, 0);
}

TEST(SegmentTest, MayBeEmpty) {
  const Segment segment = *Segment::CreateAnonymous(0);
  EXPECT_THAT(segment.bytes(), SizeIs(0));
  EXPECT_THAT(Segment::FromFd(Dup(segment.fd())), IsOk());
}

TEST(SegmentTest, AnotherProcessSeesTheSameBytes) {
  const Segment segment = *Segment::CreateAnonymous(64);
  segment.bytes()[3] = std::byte{42};
  Child child = Child::Fork([&](Child::Side) {
    absl::StatusOr<Segment> same = Segment::FromFd(Dup(segment.fd()));
    if (!same.ok() || same->bytes()[3] != std::byte{42}) return 1;
    same->bytes()[4] = std::byte{43};
    return 0;
  });
  EXPECT_EQ(child.Wait(), 0);
  EXPECT_EQ(segment.bytes()[4], std::byte{43});
}

TEST(SegmentTest, CopiesKeepTheMemory) {
  absl::Span<std::byte> bytes;
  absl::optional<Segment> copy;
  {
    const Segment segment = *Segment::CreateAnonymous(64);
    bytes = segment.bytes();
    copy = segment;
  }
  bytes[0] = std::byte{1};
  EXPECT_EQ(copy->bytes()[0], std::byte{1});
}

TEST(SegmentTest, MoreThanThereCanBe) {
  EXPECT_THAT(Segment::CreateAnonymous(SIZE_MAX),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("18446744073709551615 bytes")));
}

TEST(SegmentTest, MappedForReading) {
  const Segment segment = *Segment::CreateAnonymous(64);
  UniqueFd read_only(
      open(("/proc/self/fd/" + std::to_string(segment.fd())).c_str(),
           O_RDONLY | O_CLOEXEC));
  EXPECT_THAT(Segment::FromFd(Dup(read_only.get())),
              StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr("fd ")));
  const absl::StatusOr<Segment> reader =
      Segment::FromFd(std::move(read_only), Access::kRead);
  ASSERT_THAT(reader, IsOk());
  EXPECT_FALSE(reader->writable());
  segment.bytes()[0] = std::byte{7};
  EXPECT_EQ(reader->bytes()[0], std::byte{7});
  EXPECT_THAT(reader->Self(), StatusIs(absl::StatusCode::kPermissionDenied,
                                       HasSubstr("kReadWrite")));
}

TEST(SegmentTest, NotASegment) {
  int fds[2];
  ASSERT_EQ(pipe2(fds, O_CLOEXEC), 0);
  const UniqueFd writing_end(fds[1]);
  EXPECT_THAT(Segment::FromFd(UniqueFd(fds[0])),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("fd ")));
  EXPECT_THAT(Segment::FromFd(*CreateMemory("plain", 4096)),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("not a Parley segment")));
  EXPECT_THAT(Segment::FromFd(*CreateMemory("short", 1)),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("fd ")));
  EXPECT_FALSE(Segment::FromFd(UniqueFd()).ok());
}

TEST(SegmentTest, ASegmentOfAnotherKind) {
  const auto queue = [](internal::SegmentHeader& header) {
    header.prefix.kind = SegmentKind::kMqueue;
  };
  EXPECT_THAT(Segment::FromFd(Forge(kGoodSize, kSealed, queue)),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("kind 2, not a shm Segment")));
}

TEST(SegmentTest, ARegularFileIsRefused) {
  const Segment segment = *Segment::CreateAnonymous(64);
  const std::string path = ::testing::TempDir() + "/segment_test_file";
  UniqueFd file(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  ASSERT_TRUE(file.ok());
  ASSERT_EQ(unlink(path.c_str()), 0);
  char bytes[kGoodSize];
  ASSERT_EQ(pread(segment.fd(), bytes, sizeof(bytes), 0), sizeof(bytes));
  ASSERT_EQ(write(file.get(), bytes, sizeof(bytes)), sizeof(bytes));
  // InvalidArgument or, on a tmpfs, FailedPrecondition.
  EXPECT_FALSE(Segment::FromFd(std::move(file)).ok());
}

TEST(SegmentTest, UnsealedSizeIsRefused) {
  EXPECT_THAT(Segment::FromFd(Forge(kGoodSize, kSealed, Unchanged)), IsOk());
  EXPECT_THAT(Segment::FromFd(Forge(kGoodSize, 0, Unchanged)),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("is not sealed")));
}

TEST(SegmentTest, TruncatedFileIsRefused) {
  for (const size_t size : {sizeof(SegmentPrefix), size_t{63}, size_t{64},
                            size_t{2000}, kGoodSize - 1, kGoodSize + 1}) {
    EXPECT_THAT(Segment::FromFd(Forge(size, kSealed, Unchanged)),
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr("fd ")))
        << size;
  }
}

TEST(SegmentTest, GeometryIsChecked) {
  using Header = internal::SegmentHeader;
  const auto open = [](auto change) {
    return Segment::FromFd(Forge(kGoodSize, kSealed, change));
  };
  const auto is_corrupt =
      StatusIs(absl::StatusCode::kDataLoss, HasSubstr("its header is corrupt"));
  EXPECT_THAT(open([](Header& h) { h.user_size = 65; }), is_corrupt);
  EXPECT_THAT(open([](Header& h) { h.user_size = UINT64_MAX; }), is_corrupt);
  EXPECT_THAT(open([](Header& h) { h.header_size = 0; }), is_corrupt);
  EXPECT_THAT(open([](Header& h) { h.header_size += 64; }), is_corrupt);
  EXPECT_THAT(open([](Header& h) { h.participant_capacity = 0; }), is_corrupt);
  EXPECT_THAT(open([](Header& h) { h.participant_capacity = UINT32_MAX; }),
              is_corrupt);
  EXPECT_THAT(open([](Header& h) { h.total_size = 0; }), is_corrupt);
}

TEST(SegmentTest, OtherVersionsAndMachines) {
  using Header = internal::SegmentHeader;
  const auto open = [](auto change) {
    return Segment::FromFd(Forge(kGoodSize, kSealed, change));
  };
  constexpr auto kFailed = absl::StatusCode::kFailedPrecondition;
  EXPECT_THAT(open([](Header& h) { h.prefix.abi_major = 2; }),
              StatusIs(kFailed, HasSubstr("layout version 2.0")));
  EXPECT_THAT(open([](Header& h) { h.prefix.abi_minor = 9; }), IsOk());
  EXPECT_THAT(open([](Header& h) { h.byte_order = 0x04030201; }),
              StatusIs(kFailed, HasSubstr("byte order 4030201")));
  EXPECT_THAT(open([](Header& h) { h.word_size = 4; }),
              StatusIs(kFailed, HasSubstr("word size 4")));
  EXPECT_THAT(open([](Header& h) { h.features = 1; }),
              StatusIs(kFailed, HasSubstr("features 1")));
}

TEST(SegmentTest, AForkedChildIsAParticipantOfItsOwn) {
  const Segment segment = *Segment::CreateAnonymous(64);
  const Participant parent = *segment.Self();
  Child child = Child::Fork([&](Child::Side side) {
    const absl::StatusOr<Participant> self = segment.Self();
    if (!self.ok() || *self == parent) return 1;
    std::memcpy(segment.bytes().data(), &*self, sizeof(*self));
    side.Tell();
    side.Hear();
    return 0;
  });
  ASSERT_TRUE(child.Hear());
  Participant of_child;
  std::memcpy(&of_child, segment.bytes().data(), sizeof(of_child));
  EXPECT_FALSE(segment.IsDead(of_child));
  EXPECT_FALSE(segment.IsDead(parent));
  child.Kill();  // not reaped yet
  EXPECT_TRUE(segment.IsDead(of_child));
  EXPECT_TRUE(segment.IsDead(of_child)) << "and stays so";
}

TEST(SegmentTest, GarbageParticipantsAreDead) {
  const Segment segment = *Segment::CreateAnonymous(64);
  EXPECT_TRUE(segment.IsDead({UINT32_MAX, 0}));
  EXPECT_TRUE(segment.IsDead({Segment::kMaxParticipants, 0}));
  EXPECT_TRUE(segment.IsDead({1, 77}));
  const Participant self = *segment.Self();
  EXPECT_TRUE(segment.IsDead({self.index, self.epoch + 1}));
}

TEST(SegmentTest, ThereIsRoomForMaxParticipants) {
  // Two descriptors each.
  rlimit files;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &files), 0);
  files.rlim_cur = files.rlim_max;
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &files), 0);
  ASSERT_GE(files.rlim_cur, 2 * Segment::kMaxParticipants + 100)
      << "raise the hard limit (ulimit -Hn)";
  const Segment segment = *Segment::CreateAnonymous(64);
  std::vector<Segment> others;
  for (uint32_t i = 1; i < Segment::kMaxParticipants; ++i) {
    auto other = Segment::FromFd(Dup(segment.fd()));
    ASSERT_THAT(other, IsOk());
    others.push_back(*std::move(other));
  }
  EXPECT_THAT(Segment::FromFd(Dup(segment.fd())),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("all 256 participants")));
  EXPECT_THAT(Segment::FromFd(Dup(segment.fd()), Access::kRead), IsOk());
  others.pop_back();
  EXPECT_THAT(Segment::FromFd(Dup(segment.fd())), IsOk());
}

}  // namespace
}  // namespace ipc::shm

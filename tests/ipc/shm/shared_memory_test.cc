#include "ipc/shm/shared_memory.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ipc/base/unique_fd.h"
#include "tests/ipc/shm/memory_names.h"
#include "tests/ipc/shm/python_peer.h"
#include "tests/testing/child.h"
#include "tests/testing/own_dev_shm.h"
#include "tests/testing/status_matchers.h"

namespace ipc::shm {
namespace {
// What getrandom gives instead of random numbers, in this order.
std::vector<uint64_t> next_random_numbers;
}  // namespace
}  // namespace ipc::shm

extern "C" ssize_t PresetRandom(void* buffer, size_t size, unsigned flags) {
  auto& numbers = ipc::shm::next_random_numbers;
  if (numbers.empty() || size != sizeof(numbers[0])) {
    return syscall(SYS_getrandom, buffer, size, flags);
  }
  std::memcpy(buffer, &numbers.front(), size);
  numbers.erase(numbers.begin());
  return static_cast<ssize_t>(size);
}
// Instead of libc's.
ssize_t getrandom(void*, size_t, unsigned)
    __attribute__((alias("PresetRandom")));

namespace ipc::shm {
namespace {

using testing::Child;

using ::testing::_;
using ::testing::AllOf;
using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::SizeIs;
using ::testing::StartsWith;

using Access = SharedMemory::Access;

void Put(const SharedMemory& memory, absl::string_view text) {
  std::memcpy(memory.bytes().data(), text.data(), text.size());
}

std::string Start(const SharedMemory& memory, size_t size = 5) {
  return std::string(reinterpret_cast<const char*>(memory.bytes().data()),
                     size);
}

class SharedMemoryTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { testing::EnterOwnDevShm(); }

  // A file of `size` bytes, sparse as Python makes it.
  std::string Sparse(off_t size, mode_t mode = 0600) {
    std::string name = names_.New();
    const UniqueFd fd(open(MemoryNames::Path(name).c_str(),
                           O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode));
    EXPECT_TRUE(fd.ok());
    EXPECT_EQ(fchmod(fd.get(), mode), 0);
    EXPECT_EQ(ftruncate(fd.get(), size), 0);
    return name;
  }

  static struct stat Stat(const std::string& name) {
    struct stat stat = {};
    EXPECT_EQ(lstat(MemoryNames::Path(name).c_str(), &stat), 0);
    return stat;
  }

  MemoryNames names_;
};

// CPython: test_shared_memory_basics
TEST_F(SharedMemoryTest, SharedMemoryBasics) {
  const std::string name = names_.New();
  const absl::StatusOr<SharedMemory> sms = SharedMemory::Create(name, 512);
  ASSERT_THAT(sms, IsOk());
  EXPECT_EQ(sms->name(), name);
  EXPECT_EQ(sms->size(), 512u);
  EXPECT_THAT(sms->bytes(), AllOf(SizeIs(512), Each(std::byte{0})));
  EXPECT_TRUE(sms->writable());
  EXPECT_FALSE(sms->unlinked());
  sms->bytes()[0] = std::byte{42};

  const absl::StatusOr<SharedMemory> also_sms = SharedMemory::Open(name);
  ASSERT_THAT(also_sms, IsOk());
  EXPECT_EQ(also_sms->size(), 512u);
  EXPECT_NE(also_sms->bytes().data(), sms->bytes().data());
  EXPECT_EQ(also_sms->bytes()[0], std::byte{42});
  also_sms->bytes()[511] = std::byte{43};
  EXPECT_EQ(sms->bytes()[511], std::byte{43});

  EXPECT_THAT(SharedMemory::Create(name, 512),
              StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr(name)));
  EXPECT_THAT(SharedMemory::Open(names_.New()),
              StatusIs(absl::StatusCode::kNotFound, _));

  // The first to unlink succeeds, whoever it is.
  EXPECT_THAT(also_sms->Unlink(), IsOk());
  EXPECT_TRUE(sms->unlinked());
  EXPECT_THAT(sms->Unlink(),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr(name)));
  EXPECT_EQ(sms->bytes()[511], std::byte{43});
}

// CPython: test_shared_memory_recreate: the name that it makes up is taken
TEST_F(SharedMemoryTest, SharedMemoryRecreate) {
  const absl::StatusOr<SharedMemory> shm1 = SharedMemory::Create("", 1);
  ASSERT_THAT(shm1, IsOk());
  names_.Adopt(shm1->name());
  const absl::StatusOr<SharedMemory> shm2 = SharedMemory::Create("", 1);
  ASSERT_THAT(shm2, IsOk());
  names_.Adopt(shm2->name());
  EXPECT_THAT(shm1->name(), StartsWith("psm_"));
  EXPECT_NE(shm1->name(), shm2->name());
  EXPECT_THAT(SharedMemory::Open(shm1->name()), IsOk());

  // With the same numbers again.
  next_random_numbers.assign(2, 0x0123456789abcdef);
  next_random_numbers.push_back(0xfedcba9876543210);
  const absl::StatusOr<SharedMemory> shm3 = SharedMemory::Create("", 1);
  ASSERT_THAT(shm3, IsOk());
  EXPECT_EQ(names_.Adopt(shm3->name()), "psm_0123456789abcdef");
  shm3->bytes()[0] = std::byte{3};
  const absl::StatusOr<SharedMemory> shm4 = SharedMemory::Create("", 1);
  ASSERT_THAT(shm4, IsOk());
  EXPECT_EQ(names_.Adopt(shm4->name()), "psm_fedcba9876543210");
  EXPECT_THAT(next_random_numbers, ::testing::IsEmpty()) << "both were tried";
  EXPECT_EQ(shm3->bytes()[0], std::byte{3});
}

// CPython: test_invalid_shared_memory_creation
TEST_F(SharedMemoryTest, InvalidSharedMemoryCreation) {
  const std::string name = names_.New();
  EXPECT_THAT(SharedMemory::Create(name, 0),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(name)));
  EXPECT_THAT(SharedMemory::Create("", 0),
              StatusIs(absl::StatusCode::kInvalidArgument, _));
  EXPECT_THAT(SharedMemory::Create(name, SIZE_MAX),
              StatusIs(absl::StatusCode::kResourceExhausted, _));
  EXPECT_FALSE(MemoryNames::Exists(name));
}

// CPython: test_shared_memory_pickle_unpickle: a SharedMemory is pickled as its
// name
TEST_F(SharedMemoryTest, SharedMemoryPickleUnpickle) {
  const SharedMemory sms = *SharedMemory::Create(names_.New(), 512);
  Put(sms, "pickle");
  const SharedMemory sms2 = *SharedMemory::Open(sms.name());
  EXPECT_EQ(Start(sms2, 6), "pickle");
  Put(sms, "newval");
  EXPECT_EQ(Start(sms2, 6), "newval");
  Put(sms2, "oldval");
  EXPECT_EQ(Start(sms, 6), "oldval");
}

// CPython: test_shared_memory_pickle_unpickle_dead_object
TEST_F(SharedMemoryTest, SharedMemoryPickleUnpickleDeadObject) {
  std::string name;
  {
    const SharedMemory sms = *SharedMemory::Create(names_.New(), 512);
    name = sms.name();
    EXPECT_THAT(sms.Unlink(), IsOk());
  }
  EXPECT_THAT(SharedMemory::Open(name),
              StatusIs(absl::StatusCode::kNotFound, _));
}

// CPython: test_shared_memory_across_processes
TEST_F(SharedMemoryTest, SharedMemoryAcrossProcesses) {
  const SharedMemory sms = *SharedMemory::Create(names_.New(), 512);
  Child child = Child::Fork([&](Child::Side) {
    const absl::StatusOr<SharedMemory> same = SharedMemory::Open(sms.name());
    if (!same.ok()) return 1;
    Put(*same, "howdy");
    return 0;
  });
  EXPECT_EQ(child.Wait(), 0);
  EXPECT_EQ(Start(sms), "howdy");

  Child heir = Child::Fork([&](Child::Side) {
    Put(sms, "HELLO");
    return 0;
  });
  EXPECT_EQ(heir.Wait(), 0);
  EXPECT_EQ(Start(sms), "HELLO");
  EXPECT_FALSE(sms.unlinked()) << "no child of ours removes the name";
}

// CPython: test_shared_memory_cleaned_after_process_termination
TEST_F(SharedMemoryTest, SharedMemoryCleanedAfterProcessTermination) {
  const std::string name = names_.New();
  PythonPeer python("memory_create", {name});
  ASSERT_EQ(python.Hear(), "ready");
  const absl::StatusOr<SharedMemory> memory = SharedMemory::Open(name);
  ASSERT_THAT(memory, IsOk());
  python.Kill();
  EXPECT_EQ(python.Wait(), -SIGKILL);
  EXPECT_THAT(python.complaint(), HasSubstr("leaked shared_memory"));
  EXPECT_TRUE(memory->unlinked());
  EXPECT_EQ(Start(*memory), "howdy");
}

// A real Python and we.

TEST_F(SharedMemoryTest, PythonOpensOurs) {
  const SharedMemory memory = *SharedMemory::Create(names_.New(), 512);
  Put(memory, "C++");
  memory.bytes()[511] = std::byte{42};
  PythonPeer python("memory_attach", {memory.name()});
  EXPECT_EQ(python.Wait(), 0) << python.complaint();
  EXPECT_EQ(python.complaint(), "");
  EXPECT_EQ(Start(memory), "howdy");
  EXPECT_FALSE(memory.unlinked());
  EXPECT_THAT(memory.Unlink(), IsOk());
  PythonPeer late("memory_is_not_there", {memory.name()});
  EXPECT_EQ(late.Wait(), 0) << late.complaint();
}

TEST_F(SharedMemoryTest, WeOpenPythons) {
  const std::string name = names_.New();
  PythonPeer python("memory_create", {name});
  ASSERT_EQ(python.Hear(), "ready");
  EXPECT_LT(Stat(name).st_blocks * 512, 100000) << "Python's is sparse";

  const absl::StatusOr<SharedMemory> memory = SharedMemory::Open(name);
  ASSERT_THAT(memory, IsOk());
  EXPECT_EQ(memory->size(), 100000u);
  EXPECT_GE(Stat(name).st_blocks * 512, 100000) << "allocated";
  EXPECT_EQ(Stat(name).st_size, 100000);
  EXPECT_EQ(Start(*memory), "howdy");
  Put(*memory, "HELLO");
  memory->bytes()[99999] = std::byte{42};

  EXPECT_FALSE(memory->unlinked());
  python.Tell();
  EXPECT_EQ(python.Wait(), 0) << python.complaint();
  EXPECT_EQ(python.complaint(), "");
  EXPECT_TRUE(memory->unlinked());
  EXPECT_EQ(Start(*memory), "HELLO");
}

TEST_F(SharedMemoryTest, WeOpenPythonsRandomName) {
  PythonPeer python("memory_create_random", {});
  const std::string name = names_.Adopt(python.Hear());
  const absl::StatusOr<SharedMemory> memory = SharedMemory::Open(name);
  ASSERT_THAT(memory, IsOk());
  EXPECT_EQ(memory->name(), name);
  EXPECT_EQ(memory->size(), 10u);
  python.Tell();
  EXPECT_EQ(python.Wait(), 0) << python.complaint();
}

TEST_F(SharedMemoryTest, PythonFindsTheNameTaken) {
  const SharedMemory memory = *SharedMemory::Create(names_.New(), 1);
  PythonPeer python("memory_refuses_to_create", {memory.name()});
  EXPECT_EQ(python.Wait(), 0) << python.complaint();
  EXPECT_FALSE(memory.unlinked());
}

TEST_F(SharedMemoryTest, WeFindTheNameTakenByPython) {
  const std::string name = names_.New();
  PythonPeer python("memory_create", {name});
  ASSERT_EQ(python.Hear(), "ready");
  EXPECT_THAT(SharedMemory::Create(name, 1),
              StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr(name)));
}

TEST_F(SharedMemoryTest, APythonThatOnlyAttachedRemovesTheName) {
  const SharedMemory memory = *SharedMemory::Create(names_.New(), 512);
  PythonPeer python("memory_attach_and_end", {memory.name()});
  EXPECT_EQ(python.Wait(), 0) << python.complaint();
  EXPECT_EQ(Start(memory), "howdy") << "who has it keeps it";
  if (!memory.unlinked()) GTEST_SKIP() << "this Python has no such trap";
  EXPECT_THAT(python.complaint(), HasSubstr("leaked shared_memory"));
  EXPECT_THAT(SharedMemory::Open(memory.name()),
              StatusIs(absl::StatusCode::kNotFound, _));
  EXPECT_THAT(memory.Unlink(),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("Python")));
}

TEST_F(SharedMemoryTest, APythonThatUnlinksWhatItAttachedToIsQuiet) {
  const SharedMemory memory = *SharedMemory::Create(names_.New(), 512);
  PythonPeer python("memory_unlink", {memory.name()});
  EXPECT_EQ(python.Wait(), 0) << python.complaint();
  EXPECT_EQ(python.complaint(), "");
  EXPECT_TRUE(memory.unlinked());
}

// What others may have put there, or taken away.

TEST_F(SharedMemoryTest, CopiesKeepTheMapping) {
  absl::StatusOr<SharedMemory> memory =
      SharedMemory::Create(names_.New(), 4096);
  SharedMemory copy = *memory;
  EXPECT_EQ(copy.bytes().data(), memory->bytes().data());
  memory = absl::CancelledError();
  copy.bytes()[4095] = std::byte{1};
  const SharedMemory moved = std::move(copy);
  EXPECT_EQ(moved.bytes()[4095], std::byte{1});
}

TEST_F(SharedMemoryTest, FillsBeforeItHasAName) {
  const std::string name = names_.New();
  bool had_a_name = true;
  const absl::StatusOr<SharedMemory> memory =
      SharedMemory::Create(name, 512, [&](absl::Span<std::byte> bytes) {
        had_a_name = MemoryNames::Exists(name);
        bytes[511] = std::byte{7};
      });
  ASSERT_THAT(memory, IsOk());
  EXPECT_FALSE(had_a_name);
  EXPECT_EQ(SharedMemory::Open(name)->bytes()[511], std::byte{7});
}

TEST_F(SharedMemoryTest, IsNobodyElses) {
  const SharedMemory memory = *SharedMemory::Create(names_.New(), 512);
  EXPECT_EQ(Stat(memory.name()).st_mode & 0777, 0600u);
  EXPECT_EQ(Stat(memory.name()).st_size, 512);
  EXPECT_GE(Stat(memory.name()).st_blocks, 1) << "allocated";

  EXPECT_THAT(SharedMemory::Open(Sparse(512, 0660)),
              StatusIs(absl::StatusCode::kPermissionDenied, _));
}

TEST_F(SharedMemoryTest, ALeadingSlashIsNoPartOfTheName) {
  const std::string name = names_.New();
  const absl::StatusOr<SharedMemory> memory =
      SharedMemory::Create(absl::StrCat("/", name), 1);
  ASSERT_THAT(memory, IsOk());
  EXPECT_EQ(memory->name(), name);
  EXPECT_EQ(SharedMemory::Open(absl::StrCat("/", name))->name(), name);
  EXPECT_FALSE(memory->unlinked());
}

TEST_F(SharedMemoryTest, BadNames) {
  for (const std::string& name :
       {std::string("/"), std::string("."), std::string(".."),
        std::string("a/b"), std::string("../shm/a"), std::string("//a"),
        std::string("null\0null", 9), std::string(255, 'x')}) {
    EXPECT_THAT(SharedMemory::Create(name, 1),
                StatusIs(absl::StatusCode::kInvalidArgument, _));
    EXPECT_THAT(SharedMemory::Open(name),
                StatusIs(absl::StatusCode::kInvalidArgument, _));
    EXPECT_THAT(SharedMemory::Unlink(name),
                StatusIs(absl::StatusCode::kInvalidArgument, _));
  }
  EXPECT_THAT(SharedMemory::Open(""),
              StatusIs(absl::StatusCode::kInvalidArgument, _));
}

TEST_F(SharedMemoryTest, ASymbolicLinkIsNotFollowed) {
  const SharedMemory memory = *SharedMemory::Create(names_.New(), 512);
  const std::string link = names_.New();
  ASSERT_EQ(symlink(MemoryNames::Path(memory.name()).c_str(),
                    MemoryNames::Path(link).c_str()),
            0);
  EXPECT_THAT(SharedMemory::Open(link),
              StatusIs(absl::StatusCode::kPermissionDenied,
                       HasSubstr("symbolic link")));
  EXPECT_THAT(SharedMemory::Create(link, 1),
              StatusIs(absl::StatusCode::kAlreadyExists, _));

  // Nor one that leads to the same file.
  ASSERT_EQ(rename(MemoryNames::Path(link).c_str(),
                   MemoryNames::Path(memory.name()).c_str()),
            0);
  EXPECT_TRUE(memory.unlinked());
}

TEST_F(SharedMemoryTest, ASquattedNameIsReported) {
  const std::string fifo = names_.New();
  ASSERT_EQ(mkfifo(MemoryNames::Path(fifo).c_str(), 0600), 0);
  EXPECT_THAT(SharedMemory::Open(fifo),
              StatusIs(absl::StatusCode::kInvalidArgument, _));
  EXPECT_THAT(SharedMemory::Create(fifo, 1),
              StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr(fifo)));
}

TEST_F(SharedMemoryTest, AnotherUsersIsNotOpened) {
  const std::string foreign = Sparse(512);
  testing::GiveAway(MemoryNames::Path(foreign));
  EXPECT_THAT(SharedMemory::Open(foreign),
              StatusIs(absl::StatusCode::kPermissionDenied, _));
}

TEST_F(SharedMemoryTest, AnEmptyFileIsInvalid) {
  EXPECT_THAT(
      SharedMemory::Open(Sparse(0)),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("no bytes")));
}

TEST_F(SharedMemoryTest, ATruncatedFileHasTheSizeItIsLeftWith) {
  const std::string name = names_.New();
  ASSERT_THAT(SharedMemory::Create(name, 10000), IsOk());
  ASSERT_EQ(truncate(MemoryNames::Path(name).c_str(), 100), 0);
  const absl::StatusOr<SharedMemory> memory = SharedMemory::Open(name);
  ASSERT_THAT(memory, IsOk());
  EXPECT_EQ(memory->size(), 100u);
  EXPECT_THAT(memory->bytes(), Each(std::byte{0}));
}

TEST_F(SharedMemoryTest, UnlinkSparesOtherMemoryOfTheName) {
  const std::string name = names_.New();
  const SharedMemory old = *SharedMemory::Create(name, 512);
  ASSERT_THAT(SharedMemory::Unlink(name), IsOk());
  EXPECT_THAT(SharedMemory::Unlink(name),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr(name)));
  const SharedMemory young = *SharedMemory::Create(name, 512);
  EXPECT_TRUE(old.unlinked());
  EXPECT_THAT(old.Unlink(),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr(name)));
  EXPECT_FALSE(young.unlinked());
  EXPECT_THAT(young.Unlink(), IsOk());
}

TEST_F(SharedMemoryTest, ForReadingItCannotBeChanged) {
  const std::string name = Sparse(8192);
  const absl::StatusOr<SharedMemory> memory =
      SharedMemory::Open(name, Access::kRead);
  ASSERT_THAT(memory, IsOk());
  EXPECT_FALSE(memory->writable());
  EXPECT_THAT(memory->bytes(), Each(std::byte{0}));
  Child child = Child::Fork([&](Child::Side) {
    signal(SIGSEGV, SIG_DFL);  // a sanitizer's would report it
    memory->bytes()[0] = std::byte{1};
    return 0;
  });
  EXPECT_EQ(child.Wait(), -SIGSEGV);
  EXPECT_EQ(memory->bytes()[0], std::byte{0});

  SharedMemory::Open(name)->bytes()[0] = std::byte{2};
  EXPECT_EQ(memory->bytes()[0], std::byte{2}) << "others can";
  EXPECT_THAT(memory->Unlink(), IsOk());
}

TEST_F(SharedMemoryTest, MoreThanTheMachineHas) {
  EXPECT_THAT(SharedMemory::Create(names_.New(), size_t{1} << 50),
              StatusIs(absl::StatusCode::kResourceExhausted, _));
  const std::string name = Sparse(off_t{1} << 50);
  EXPECT_THAT(SharedMemory::Open(name),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr(name)));
}

TEST_F(SharedMemoryTest, AFullDevShmIsAStatus) {
  Child child = Child::Fork([&](Child::Side) {
    if (!testing::EnterOwnDevShm("size=65536")) return 4;
    const absl::Status created =
        SharedMemory::Create(names_.New(), 1 << 20).status();
    EXPECT_TRUE(absl::IsResourceExhausted(created)) << created;
    const absl::Status opened =
        SharedMemory::Open(Sparse(1 << 20), Access::kRead).status();
    EXPECT_TRUE(absl::IsResourceExhausted(opened)) << opened;
    const std::string fits = Sparse(1 << 15);
    const absl::StatusOr<SharedMemory> memory = SharedMemory::Open(fits);
    if (!memory.ok()) return 1;
    const absl::StatusOr<SharedMemory> rest =
        SharedMemory::Create(names_.New(), 1 << 15);
    if (!rest.ok()) return 2;
    // Full, and still all that was granted can be written to.
    for (std::byte& byte : memory->bytes()) byte = std::byte{1};
    for (std::byte& byte : rest->bytes()) byte = std::byte{1};
    return HasFailure() ? 3 : 0;
  });
  EXPECT_EQ(child.Wait(), 0);
}

}  // namespace
}  // namespace ipc::shm

#include "tests/testing/repeatable_heap.h"

#include <errno.h>
#include <malloc.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ipc::testing {
namespace {

using ::testing::ExitedWithCode;
using ::testing::KilledBySignal;

// Nothing of it is allocated.
using Addresses = std::array<uintptr_t, 8>;

// Of what a child allocates.
Addresses AllocateInChild() {
  void* const memory = mmap(nullptr, sizeof(Addresses), PROT_READ | PROT_WRITE,
                            MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  auto* const shared = static_cast<Addresses*>(memory);
  const pid_t child = fork();
  if (child == 0) {
    UseRepeatableHeap();
    size_t size = 1;
    for (uintptr_t& address : *shared) {
      void* const block = malloc(size);
      address = reinterpret_cast<uintptr_t>(block);
      memset(block, 0xee, size);
      free(block);
      size *= 5;
    }
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  const Addresses addresses = *shared;
  munmap(memory, sizeof(Addresses));
  return addresses;
}

// Runs `check` in a child that uses it; what it checks is seen by its exit.
#define EXPECT_IN_CHILD(check)                       \
  EXPECT_EXIT(                                       \
      {                                              \
        UseRepeatableHeap();                         \
        const std::function<bool()> is_right{check}; \
        _exit(is_right() ? 0 : 1);                   \
      },                                             \
      ExitedWithCode(0), "")

TEST(RepeatableHeapTest, GivesTheSameAddressesWhateverTheParentHas) {
  const Addresses first = AllocateInChild();
  std::vector<std::unique_ptr<char[]>> kept;
  for (size_t i = 0; i < 100; ++i) {
    kept.push_back(std::make_unique<char[]>(10 * i));
    if (i % 3 == 0) kept[i / 2].reset();
    EXPECT_EQ(AllocateInChild(), first);
  }
}

TEST(RepeatableHeapTest, GivesNoAddressTwice) {
  Addresses addresses = AllocateInChild();
  EXPECT_TRUE(std::is_sorted(addresses.begin(), addresses.end()));
  EXPECT_EQ(std::unique(addresses.begin(), addresses.end()), addresses.end());
}

TEST(RepeatableHeapTest, BlocksAreAligned) {
  EXPECT_IN_CHILD(([] {
    for (size_t size = 0; size < 100; ++size) {
      const auto address = reinterpret_cast<uintptr_t>(malloc(size));
      if (address % alignof(max_align_t) != 0) return false;
    }
    for (size_t alignment = 8; alignment <= 65536; alignment *= 2) {
      void* block = nullptr;
      if (posix_memalign(&block, alignment, 100) != 0) return false;
      if (reinterpret_cast<uintptr_t>(block) % alignment != 0) return false;
      const auto other =
          reinterpret_cast<uintptr_t>(std::aligned_alloc(alignment, alignment));
      if (other % alignment != 0) return false;
    }
    return true;
  }));
}

TEST(RepeatableHeapTest, OfNoSuchAlignmentThereIsNone) {
  EXPECT_IN_CHILD(([] {
    void* block = nullptr;
    return posix_memalign(&block, 24, 100) == EINVAL && block == nullptr;
  }));
}

TEST(RepeatableHeapTest, CallocGivesZeros) {
  EXPECT_IN_CHILD(([] {
    const auto* bytes = static_cast<char*>(calloc(100, 100));
    return std::all_of(bytes, bytes + 10'000, [](char c) { return c == 0; });
  }));
}

TEST(RepeatableHeapTest, ReallocKeepsWhatFits) {
  // Of the C library's heap, as it was before.
  char* const old = strdup("from before");
  EXPECT_IN_CHILD(([old] {
    auto* bytes = static_cast<char*>(realloc(old, 1000));
    if (std::string(bytes) != "from before") return false;
    bytes = static_cast<char*>(realloc(bytes, 4));
    bytes = static_cast<char*>(realloc(bytes, 100'000));
    return std::string(bytes, 4) == "from";
  }));
  free(old);
}

TEST(RepeatableHeapTest, AllFunctionsTakeFromIt) {
  volatile size_t odd = 24;  // compilers refuse such an alignment
  EXPECT_IN_CHILD(([&odd] {
    const auto here = reinterpret_cast<uintptr_t>(malloc(1));
    for (void* const block :
         {valloc(1), pvalloc(1), memalign(odd, 1), reallocarray(nullptr, 2, 3),
          static_cast<void*>(strdup("text")), malloc(0)}) {
      const auto distance = reinterpret_cast<uintptr_t>(block) - here;
      if (distance > 100'000 || malloc_usable_size(block) == 0) return false;
    }
    return malloc_usable_size(nullptr) == 0 && realloc(malloc(1), 0) == nullptr;
  }));
}

TEST(RepeatableHeapTest, SizeOfABlockFromBefore) {
  void* const old = malloc(100);
  EXPECT_GE(malloc_usable_size(old), 100u);
  EXPECT_IN_CHILD(([old] {
    const size_t size = malloc_usable_size(old);
    return size >= 100 && size < 200;
  }));
  free(old);
}

TEST(RepeatableHeapTest, ABlockFromBeforeMayBeFreed) {
  auto before = std::make_unique<std::string>(1000, 'x');
  EXPECT_IN_CHILD(([&] {
    before.reset();
    return true;
  }));
}

TEST(RepeatableHeapTest, NoSuchSizeIsNoMemory) {
  volatile size_t huge = SIZE_MAX - 8;
  EXPECT_IN_CHILD(([&] {
    const bool none = malloc(huge) == nullptr && errno == ENOMEM;
    return none && calloc(huge, 2) == nullptr && malloc(1) != nullptr;
  }));
}

TEST(RepeatableHeapTest, AbortsWhenItIsUsedUp) {
  EXPECT_EXIT(
      {
        UseRepeatableHeap();
        for (int i = 0; i < 100; ++i) {
          // Written to, as the compiler leaves out what nobody needs.
          *static_cast<volatile char*>(malloc(1 << 20)) = 1;
        }
        _exit(0);
      },
      KilledBySignal(SIGABRT), "its 64 MiB are used up");
}

}  // namespace
}  // namespace ipc::testing

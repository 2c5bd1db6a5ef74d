#include "tests/testing/repeatable_heap.h"

#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdlib>

// The C library's own.
extern "C" {
void* __libc_malloc(size_t size);
void __libc_free(void* block);
void* __libc_calloc(size_t count, size_t size);
void* __libc_realloc(void* block, size_t size);
void* __libc_memalign(size_t alignment, size_t size);
}

namespace {

constexpr size_t kRoom = size_t{64} << 20;
constexpr size_t kAlignment = alignof(max_align_t);
constexpr size_t kPage = 4096;

// Before each block. As large as the alignment, so that the block is aligned.
struct alignas(kAlignment) Header {
  size_t size;
};

// Zero pages until they are used, and where they are in each child of a fork.
alignas(kPage) char room[kRoom];
std::atomic<bool> is_repeatable{false};
// Of the room, in bytes. Relaxed: a thread only has to have its bytes for
// itself.
std::atomic<size_t> used{0};

bool IsInRoom(const void* block) {
  return block >= room && block < room + kRoom;
}

void* Take(size_t alignment, size_t size) {
  // No block is where the next one is.
  size = std::max<size_t>(size, 1);
  // As the C library.
  alignment = std::bit_ceil(alignment);
  // An alignment above the usual one is room that is wasted before the block.
  const size_t waste = alignment > kAlignment ? alignment : 0;
  size_t whole = sizeof(Header) + waste + size;
  if (whole < size || whole > kRoom) {
    errno = ENOMEM;
    return nullptr;
  }
  whole = (whole + kAlignment - 1) / kAlignment * kAlignment;
  const size_t begin = used.fetch_add(whole, std::memory_order_relaxed);
  if (begin > kRoom - whole) {
    constexpr char kText[] = "repeatable_heap: its 64 MiB are used up\n";
    (void)!write(STDERR_FILENO, kText, sizeof(kText) - 1);
    abort();
  }
  char* block = room + begin + sizeof(Header);
  if (waste > 0) {
    block += -reinterpret_cast<uintptr_t>(block) & (alignment - 1);
  }
  reinterpret_cast<Header*>(block)[-1].size = size;
  return block;
}

// Of one that the C library gave.
size_t SizeOfBefore(void* block) {
  static const auto size_of = reinterpret_cast<size_t (*)(void*)>(
      dlsym(RTLD_NEXT, "malloc_usable_size"));
  return size_of(block);
}

bool IsRepeatable() { return is_repeatable.load(std::memory_order_relaxed); }

}  // namespace

namespace ipc::testing {

void UseRepeatableHeap() {
  is_repeatable.store(true, std::memory_order_relaxed);
}

}  // namespace ipc::testing

// Their parameters' names are those of the C library's headers.
extern "C" {

void* malloc(size_t size) {
  return IsRepeatable() ? Take(kAlignment, size) : __libc_malloc(size);
}

void free(void* ptr) {
  if (!IsRepeatable()) __libc_free(ptr);
}

void* calloc(size_t nmemb, size_t size) {
  if (!IsRepeatable()) return __libc_calloc(nmemb, size);
  size_t whole;
  if (__builtin_mul_overflow(nmemb, size, &whole)) {
    errno = ENOMEM;
    return nullptr;
  }
  return Take(kAlignment, whole);  // of which nothing was ever used
}

size_t malloc_usable_size(void* ptr) {
  if (ptr == nullptr) return 0;
  return IsInRoom(ptr) ? static_cast<Header*>(ptr)[-1].size : SizeOfBefore(ptr);
}

void* realloc(void* ptr, size_t size) {
  if (!IsRepeatable()) return __libc_realloc(ptr, size);
  if (ptr != nullptr && size == 0) return nullptr;  // it is freed
  void* const larger = Take(kAlignment, size);
  if (ptr != nullptr && larger != nullptr) {
    memcpy(larger, ptr, std::min(size, malloc_usable_size(ptr)));
  }
  return larger;
}

void* memalign(size_t alignment, size_t size) {
  return IsRepeatable() ? Take(alignment, size)
                        : __libc_memalign(alignment, size);
}

void* aligned_alloc(size_t alignment, size_t size) {
  return memalign(alignment, size);
}

void* valloc(size_t size) { return memalign(kPage, size); }

void* pvalloc(size_t size) {
  return memalign(kPage, (size + kPage - 1) / kPage * kPage);
}

int posix_memalign(void** memptr, size_t alignment, size_t size) {
  if (!std::has_single_bit(alignment) || alignment % sizeof(void*) != 0) {
    return EINVAL;
  }
  const int error = errno;
  void* const taken = memalign(alignment, size);
  errno = error;
  if (taken == nullptr) return ENOMEM;
  *memptr = taken;
  return 0;
}

}  // extern "C"

#include "ipc/shm/racy_copy.h"

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "absl/base/config.h"
#include "ipc/base/copy.h"

// GCC warns that ThreadSanitizer does not model fences. It does not have to:
// what they order is hidden from it.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wtsan"
#endif

namespace ipc::shm::internal {
namespace {

#ifdef ABSL_HAVE_THREAD_SANITIZER
// Not memcpy, of which ThreadSanitizer has its own.
__attribute__((no_sanitize("thread"), noinline)) void Copy(void* to,
                                                           const void* from,
                                                           size_t bytes) {
  auto* const target = static_cast<volatile std::byte*>(to);
  const auto* const source = static_cast<const volatile std::byte*>(from);
  for (size_t i = 0; i < bytes; ++i) target[i] = source[i];
}
#else
void Copy(void* to, const void* from, size_t bytes) {
  CopyBytes(to, from, bytes);
}
#endif

}  // namespace

void LoadRacily(void* to, const void* from, size_t bytes) {
  Copy(to, from, bytes);
  std::atomic_thread_fence(std::memory_order_acquire);
}

void StoreRacily(void* to, const void* from, size_t bytes) {
  ReleaseFence();
  Copy(to, from, bytes);
}

void ReleaseFence() { std::atomic_thread_fence(std::memory_order_release); }

}  // namespace ipc::shm::internal

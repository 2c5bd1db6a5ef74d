// A T in memory that is shared with the children forked later.
//
//   Shared<Counters> counters;
//   if (fork() == 0) counters->received.store(1);
#ifndef TOOLS_BENCH_SHARED_H_
#define TOOLS_BENCH_SHARED_H_

#include <sys/mman.h>

#include <cstddef>
#include <new>
#include <utility>

#include "tools/bench/die.h"

namespace bench {

// So many bytes of zeros, present in memory, so that no page fault is measured.
class SharedBytes {
 public:
  explicit SharedBytes(size_t size) : size_(size) {
    data_ = mmap(nullptr, size, PROT_READ | PROT_WRITE,
                 MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    CheckCall(data_ != MAP_FAILED, "mmap");
  }
  SharedBytes(const SharedBytes&) = delete;
  SharedBytes& operator=(const SharedBytes&) = delete;
  ~SharedBytes() { munmap(data_, size_); }

  std::byte* data() const { return static_cast<std::byte*>(data_); }

 private:
  const size_t size_;
  void* data_;
};

template <typename T>
class Shared {
 public:
  template <typename... Arguments>
  explicit Shared(Arguments&&... arguments)
      : memory_(sizeof(T)),
        value_(new (memory_.data()) T(std::forward<Arguments>(arguments)...)) {}

  T* get() const { return value_; }
  T& operator*() const { return *value_; }
  T* operator->() const { return value_; }

 private:
  const SharedBytes memory_;
  T* const value_;
};

}  // namespace bench

#endif  // TOOLS_BENCH_SHARED_H_

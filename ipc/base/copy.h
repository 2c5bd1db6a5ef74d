// Copies of bytes at the speed of the memory, wherever they lie.
//
// "rep movsb" of AMD's Zen 3 and Zen 4 takes twenty times as long as it should,
// a byte per cycle, if the target lies 1 to 31 bytes behind the source, counted
// modulo 4096, whatever the two have to do with each other otherwise. It is no
// rare case: a large block of malloc's begins 16 bytes into a page, and what
// the kernel or a segment holds begins with the page. memcpy of glibc
// before 2.39 uses that instruction from 2112 bytes up to some hundred KiB, and
// the kernel for all that is read and written. (glibc stops at the size of the
// second-level cache, which is 512 KiB on Zen 3.) Sources:
// https://sourceware.org/bugzilla/show_bug.cgi?id=30994 and
// https://lunnova.dev/articles/ryzen-slow-short-rep-mov.
//
// Example:
//
//   CopyBytes(slot, message.data(), message.size());
//
//   // read(2) copies from the beginning of a page.
//   if (IsSlowCopy(PlaceOf(buffer), 0)) ... read it to elsewhere, and copy it
//
// Thread safety: functions of their arguments.
#ifndef IPC_BASE_COPY_H_
#define IPC_BASE_COPY_H_

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace ipc {

inline uintptr_t PlaceOf(const void* address) {
  return reinterpret_cast<uintptr_t>(address);
}

// Whether "rep movsb" would take so long. Of an address it is enough to know
// the place in its page.
inline bool IsSlowCopy(uintptr_t to, uintptr_t from) {
  constexpr uintptr_t kPage = 4096;
  constexpr uintptr_t kSlow = 31;
  return (to - from - 1) % kPage < kSlow;
}

namespace internal {

// A call of memcpy. Where GCC knows something of the size it may put one of the
// "rep" family in its place.
inline void CallMemcpy(void* to, const void* from, size_t bytes) {
  asm("" : "+r"(bytes));
  std::memcpy(to, from, bytes);
}

}  // namespace internal

// As memcpy, and of no bytes both may be null.
inline void CopyBytes(void* to, const void* from, size_t bytes) {
  // memcpy does so much, and what is larger than kLarge, by other instructions.
  constexpr size_t kPiece = 2048;
  constexpr size_t kLarge = size_t{512} << 10;
  if (bytes == 0) return;
  if (bytes > kPiece && bytes < kLarge &&
      IsSlowCopy(PlaceOf(to), PlaceOf(from))) [[unlikely]] {
    auto* target = static_cast<std::byte*>(to);
    const auto* source = static_cast<const std::byte*>(from);
    for (; bytes > kPiece; bytes -= kPiece) {
      internal::CallMemcpy(target, source, kPiece);
      target += kPiece;
      source += kPiece;
    }
    to = target;
    from = source;
  }
  internal::CallMemcpy(to, from, bytes);
}

}  // namespace ipc

#endif  // IPC_BASE_COPY_H_

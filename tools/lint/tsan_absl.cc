// Tells ThreadSanitizer what absl::Mutex and its kin order.
//
// The system's Abseil is not instrumented, so ThreadSanitizer would report a
// race for whatever they guard. This file is linked into every program of the
// tsan configuration. Its definitions come before those of
// libabsl_synchronization.so, for other libraries such as gRPC too; each calls
// the one it hides, and says that it acquires or releases.
//
// A lock is told to release before it really does, and to acquire after. What
// happens in between on other's behalf is ignored: Unlock evaluates the
// conditions of waiters (see absl::Condition).

#include <dlfcn.h>
#include <sanitizer/tsan_interface.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "absl/base/options.h"
#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"

extern "C" {
// ThreadSanitizer's, declared in no header.
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
}

namespace {

#define PARLEY_STRING_OF(x) #x
#define PARLEY_STRING(x) PARLEY_STRING_OF(x)

// The hidden definition, by its mangled name within Abseil's namespace, such as
// "_ZN", "5Mutex4LockEv".
void* Hidden(const char* start, const char* name) {
  const std::string inline_namespace =
      PARLEY_STRING(ABSL_OPTION_INLINE_NAMESPACE_NAME);
  const std::string symbol = start + std::string("4absl") +
                             std::to_string(inline_namespace.size()) +
                             inline_namespace + name;
  void* found = dlsym(RTLD_NEXT, symbol.c_str());
  if (found == nullptr) {
    std::fprintf(stderr, "tsan_absl.cc: Abseil has no %s\n", symbol.c_str());
    std::abort();
  }
  return found;
}

// A method of `object` that is called with `arguments`: in the Itanium ABI a
// function with `this` before them.
template <typename Result, typename... Arguments>
Result Call(void* hidden, const void* object, Arguments... arguments) {
  struct IgnoreReads {
    IgnoreReads() { AnnotateIgnoreReadsBegin(__FILE__, __LINE__); }
    ~IgnoreReads() { AnnotateIgnoreReadsEnd(__FILE__, __LINE__); }
  } ignore_reads;
  return reinterpret_cast<Result (*)(const void*, Arguments...)>(hidden)(
      object, arguments...);
}

void Acquire(const void* object) { __tsan_acquire(const_cast<void*>(object)); }
void Release(const void* object) { __tsan_release(const_cast<void*>(object)); }

// absl::Notification is a Mutex and an atomic, which its inline functions read.
const void* FlagOf(const absl::Notification* notification) {
  static_assert(sizeof(absl::Notification) == 2 * sizeof(absl::Mutex));
  return reinterpret_cast<const char*>(notification) + sizeof(absl::Mutex);
}

}  // namespace

namespace absl {
ABSL_NAMESPACE_BEGIN

void Mutex::Lock() {
  static void* const hidden = Hidden("_ZN", "5Mutex4LockEv");
  Call<void>(hidden, this);
  Acquire(this);
}
void Mutex::Unlock() {
  static void* const hidden = Hidden("_ZN", "5Mutex6UnlockEv");
  Release(this);
  Call<void>(hidden, this);
}
bool Mutex::TryLock() {
  static void* const hidden = Hidden("_ZN", "5Mutex7TryLockEv");
  const bool locked = Call<bool>(hidden, this);
  if (locked) Acquire(this);
  return locked;
}

// Readers are told to be ordered among each other too, which they are not. A
// race between two of them, of which one writes, stays hidden for that.
void Mutex::ReaderLock() {
  static void* const hidden = Hidden("_ZN", "5Mutex10ReaderLockEv");
  Call<void>(hidden, this);
  Acquire(this);
}
void Mutex::ReaderUnlock() {
  static void* const hidden = Hidden("_ZN", "5Mutex12ReaderUnlockEv");
  Release(this);
  Call<void>(hidden, this);
}
bool Mutex::ReaderTryLock() {
  static void* const hidden = Hidden("_ZN", "5Mutex13ReaderTryLockEv");
  const bool locked = Call<bool>(hidden, this);
  if (locked) Acquire(this);
  return locked;
}

void Mutex::LockWhen(const Condition& condition) {
  static void* const hidden =
      Hidden("_ZN", "5Mutex8LockWhenERKNS0_9ConditionE");
  Call<void>(hidden, this, &condition);
  Acquire(this);
}
bool Mutex::LockWhenWithTimeout(const Condition& condition, Duration timeout) {
  static void* const hidden = Hidden(
      "_ZN", "5Mutex19LockWhenWithTimeoutERKNS0_9ConditionENS0_8DurationE");
  const bool is_true = Call<bool>(hidden, this, &condition, timeout);
  Acquire(this);
  return is_true;
}
bool Mutex::LockWhenWithDeadline(const Condition& condition, Time deadline) {
  static void* const hidden =
      Hidden("_ZN", "5Mutex20LockWhenWithDeadlineERKNS0_9ConditionENS0_4TimeE");
  const bool is_true = Call<bool>(hidden, this, &condition, deadline);
  Acquire(this);
  return is_true;
}
void Mutex::ReaderLockWhen(const Condition& condition) {
  static void* const hidden =
      Hidden("_ZN", "5Mutex14ReaderLockWhenERKNS0_9ConditionE");
  Call<void>(hidden, this, &condition);
  Acquire(this);
}
bool Mutex::ReaderLockWhenWithTimeout(const Condition& condition,
                                      Duration timeout) {
  static void* const hidden =
      Hidden("_ZN",
             "5Mutex25ReaderLockWhenWithTimeoutERKNS0_9ConditionENS0_8Duration"
             "E");
  const bool is_true = Call<bool>(hidden, this, &condition, timeout);
  Acquire(this);
  return is_true;
}
bool Mutex::ReaderLockWhenWithDeadline(const Condition& condition,
                                       Time deadline) {
  static void* const hidden = Hidden(
      "_ZN", "5Mutex26ReaderLockWhenWithDeadlineERKNS0_9ConditionENS0_4TimeE");
  const bool is_true = Call<bool>(hidden, this, &condition, deadline);
  Acquire(this);
  return is_true;
}

void Mutex::Await(const Condition& condition) {
  static void* const hidden = Hidden("_ZN", "5Mutex5AwaitERKNS0_9ConditionE");
  Release(this);
  Call<void>(hidden, this, &condition);
  Acquire(this);
}
bool Mutex::AwaitWithTimeout(const Condition& condition, Duration timeout) {
  static void* const hidden =
      Hidden("_ZN", "5Mutex16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE");
  Release(this);
  const bool is_true = Call<bool>(hidden, this, &condition, timeout);
  Acquire(this);
  return is_true;
}
bool Mutex::AwaitWithDeadline(const Condition& condition, Time deadline) {
  static void* const hidden =
      Hidden("_ZN", "5Mutex17AwaitWithDeadlineERKNS0_9ConditionENS0_4TimeE");
  Release(this);
  const bool is_true = Call<bool>(hidden, this, &condition, deadline);
  Acquire(this);
  return is_true;
}

void CondVar::Wait(Mutex* mutex) {
  static void* const hidden = Hidden("_ZN", "7CondVar4WaitEPNS0_5MutexE");
  Release(mutex);
  Call<void>(hidden, this, mutex);
  Acquire(mutex);
}
bool CondVar::WaitWithTimeout(Mutex* mutex, Duration timeout) {
  static void* const hidden =
      Hidden("_ZN", "7CondVar15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE");
  Release(mutex);
  const bool timed_out = Call<bool>(hidden, this, mutex, timeout);
  Acquire(mutex);
  return timed_out;
}
bool CondVar::WaitWithDeadline(Mutex* mutex, Time deadline) {
  static void* const hidden =
      Hidden("_ZN", "7CondVar16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE");
  Release(mutex);
  const bool timed_out = Call<bool>(hidden, this, mutex, deadline);
  Acquire(mutex);
  return timed_out;
}

void Notification::Notify() {
  static void* const hidden = Hidden("_ZN", "12Notification6NotifyEv");
  Release(FlagOf(this));
  Call<void>(hidden, this);
}
void Notification::WaitForNotification() const {
  static void* const hidden =
      Hidden("_ZNK", "12Notification19WaitForNotificationEv");
  Call<void>(hidden, this);
  Acquire(FlagOf(this));
}
bool Notification::WaitForNotificationWithTimeout(Duration timeout) const {
  static void* const hidden = Hidden(
      "_ZNK", "12Notification30WaitForNotificationWithTimeoutENS0_8DurationE");
  const bool notified = Call<bool>(hidden, this, timeout);
  if (notified) Acquire(FlagOf(this));
  return notified;
}
bool Notification::WaitForNotificationWithDeadline(Time deadline) const {
  static void* const hidden = Hidden(
      "_ZNK", "12Notification31WaitForNotificationWithDeadlineENS0_4TimeE");
  const bool notified = Call<bool>(hidden, this, deadline);
  if (notified) Acquire(FlagOf(this));
  return notified;
}

bool BlockingCounter::DecrementCount() {
  static void* const hidden =
      Hidden("_ZN", "15BlockingCounter14DecrementCountEv");
  Release(this);
  return Call<bool>(hidden, this);
}
void BlockingCounter::Wait() {
  static void* const hidden = Hidden("_ZN", "15BlockingCounter4WaitEv");
  Call<void>(hidden, this);
  Acquire(this);
}

ABSL_NAMESPACE_END
}  // namespace absl

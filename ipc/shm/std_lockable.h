// The names that std::lock_guard, std::unique_lock and std::scoped_lock ask
// for, over a Derived that has
//
//   absl::Status AcquireFor(absl::Duration timeout);
//   absl::Status Unlock();
//
// and, for std::shared_lock,
//
//   absl::Status AcquireSharedFor(absl::Duration timeout);
//   absl::Status UnlockShared();
#ifndef IPC_SHM_STD_LOCKABLE_H_
#define IPC_SHM_STD_LOCKABLE_H_

#include <chrono>
#include <string>
#include <system_error>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace ipc::shm::internal {

template <typename Derived>
class StdLockable {
 public:
  // As std::mutex::lock, throws std::system_error where Lock returns a Status,
  // which with an infinite time-out means that the segment is mapped for
  // reading (operation_not_permitted), that there are too many participants,
  // descriptors or locks of a thread (resource_unavailable_try_again), or that
  // a forked child could not attach to it for another reason (io_error).
  void lock() { ThrowUnlessOk(self().AcquireFor(absl::InfiniteDuration())); }
  bool try_lock() { return self().AcquireFor(absl::ZeroDuration()).ok(); }
  template <typename Rep, typename Period>
  bool try_lock_for(std::chrono::duration<Rep, Period> timeout) {
    return self().AcquireFor(ToDuration(timeout)).ok();
  }
  template <typename Clock, typename Duration>
  bool try_lock_until(std::chrono::time_point<Clock, Duration> deadline) {
    return try_lock_for(deadline - Clock::now());
  }
  // Does nothing if the lock is not held, such as in a forked child.
  void unlock() { self().Unlock().IgnoreError(); }

 protected:
  static void ThrowUnlessOk(const absl::Status& status) {
    if (status.ok()) return;
    throw std::system_error(std::make_error_code(CodeFor(status.code())),
                            std::string(status.message()));
  }
  template <typename Rep, typename Period>
  static absl::Duration ToDuration(std::chrono::duration<Rep, Period> time) {
    if constexpr (requires { absl::FromChrono(time); }) {
      return absl::FromChrono(time);
    } else {
      // Such as of a floating number of minutes.
      return absl::Seconds(std::chrono::duration<double>(time).count());
    }
  }

 private:
  static std::errc CodeFor(absl::StatusCode code) {
    switch (code) {
      case absl::StatusCode::kPermissionDenied:
        return std::errc::operation_not_permitted;
      case absl::StatusCode::kResourceExhausted:
        return std::errc::resource_unavailable_try_again;
      case absl::StatusCode::kDeadlineExceeded:
        return std::errc::timed_out;
      default:
        return std::errc::io_error;
    }
  }
  Derived& self() { return static_cast<Derived&>(*this); }
};

template <typename Derived>
class StdSharedLockable : public StdLockable<Derived> {
 public:
  void lock_shared() {
    this->ThrowUnlessOk(self().AcquireSharedFor(absl::InfiniteDuration()));
  }
  bool try_lock_shared() {
    return self().AcquireSharedFor(absl::ZeroDuration()).ok();
  }
  template <typename Rep, typename Period>
  bool try_lock_shared_for(std::chrono::duration<Rep, Period> timeout) {
    return self().AcquireSharedFor(this->ToDuration(timeout)).ok();
  }
  template <typename Clock, typename Duration>
  bool try_lock_shared_until(
      std::chrono::time_point<Clock, Duration> deadline) {
    return try_lock_shared_for(deadline - Clock::now());
  }
  void unlock_shared() { self().UnlockShared().IgnoreError(); }

 private:
  Derived& self() { return static_cast<Derived&>(*this); }
};

}  // namespace ipc::shm::internal

#endif  // IPC_SHM_STD_LOCKABLE_H_

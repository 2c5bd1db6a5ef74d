#include "ipc/base/own_descriptors.h"

#include <errno.h>
#include <linux/close_range.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <climits>

#include "ipc/base/posix_error.h"

namespace ipc {
namespace {

struct Task {
  absl::FunctionRef<void()> body;
  absl::Status status;
};

void* Run(void* argument) {
  Task& task = *static_cast<Task*>(argument);
  // Not by a copy of all: that would hold them open until the thread has ended,
  // which is somewhat later than pthread_join says.
  if (close_range(STDERR_FILENO + 1, UINT_MAX, CLOSE_RANGE_UNSHARE) == 0) {
    task.body();
  } else {
    task.status = PosixError(errno, "unsharing the table of descriptors");
  }
  return nullptr;
}

}  // namespace

absl::Status RunWithOwnDescriptors(absl::FunctionRef<void()> body) {
  Task task = {.body = body, .status = absl::OkStatus()};
  // A thread inherits its mask. A handler would find descriptors that are not
  // those it knows.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread;
  const int error = pthread_create(&thread, nullptr, &Run, &task);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (error != 0) return PosixError(error, "pthread_create");
  pthread_join(thread, nullptr);
  return task.status;
}

}  // namespace ipc

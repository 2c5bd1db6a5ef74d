// The supervisor: the parent of every process that Parley runs.
//
// It is told what to do over the descriptors that it is granted (LISTEN_FDS,
// sd_listen_fds(3)), by name:
//
//   control  a connected unix socket; when it closes, the supervisor stops all
//            and exits
//   listen   a listening unix socket, for clients of the same user
//   lock     held open, and so locked, for as long as the supervisor lives
//
// SIGTERM and SIGINT stop all, then exit. Exit status: 0 when asked to stop, 1
// if it could not start.

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "ipc/base/posix_error.h"
#include "ipc/base/unique_fd.h"
#include "services/agent/listen_fds.h"
#include "services/agent/notify.h"
#include "services/supervisor/event_loop.h"
#include "services/supervisor/server.h"
#include "services/supervisor/supervisor.h"

namespace parley::supervisor {
namespace {

// Readable when SIGTERM or SIGINT has come. Log readers that go away are seen
// by their error, not by SIGPIPE.
absl::StatusOr<ipc::UniqueFd> StopSignals() {
  signal(SIGPIPE, SIG_IGN);
  sigset_t stop;
  sigemptyset(&stop);
  sigaddset(&stop, SIGTERM);
  sigaddset(&stop, SIGINT);
  sigprocmask(SIG_BLOCK, &stop, nullptr);
  ipc::UniqueFd fd(signalfd(-1, &stop, SFD_CLOEXEC));
  if (!fd.ok()) return ipc::PosixError(errno, "signalfd");
  return fd;
}

// Each process takes five descriptors here, and each client one, so the soft
// limit, 1024 in many places, is soon reached. Returns what it was, which is
// what children get: programs that use select(2) rely on it.
absl::StatusOr<rlimit> RaiseFileLimit() {
  rlimit before;
  if (getrlimit(RLIMIT_NOFILE, &before) != 0) {
    return ipc::PosixError(errno, "getrlimit of open files");
  }
  const rlimit raised = {.rlim_cur = before.rlim_max,
                         .rlim_max = before.rlim_max};
  if (setrlimit(RLIMIT_NOFILE, &raised) != 0) {
    return ipc::PosixError(errno, "setrlimit of open files");
  }
  return before;
}

absl::Status Run() {
  auto granted = agent::TakeListenFds();
  if (!granted.ok()) return granted.status();
  auto notifier = agent::Notifier::FromEnvironment();
  if (!notifier.ok()) return notifier.status();
  absl::StatusOr<ipc::UniqueFd> stop_signals = StopSignals();
  if (!stop_signals.ok()) return stop_signals.status();

  const absl::StatusOr<rlimit> files = RaiseFileLimit();
  if (!files.ok()) return files.status();

  EventLoop loop;
  auto supervisor = Supervisor::Create(loop, {{RLIMIT_NOFILE, *files}});
  if (!supervisor.ok()) return supervisor.status();
  const auto quit = [&loop] { loop.Quit(); };
  const auto stop = [&] { (*supervisor)->Shutdown(quit); };
  Server server(loop, **supervisor, quit);
  EventLoop::WatchId stop_watch = 0;
  stop_watch = loop.Watch(stop_signals->get(), EPOLLIN, [&](uint32_t) {
    loop.Unwatch(stop_watch);
    stop();
  });

  bool has_clients = false;
  std::vector<ipc::UniqueFd> held;
  for (agent::NamedFd& fd : *granted) {
    if (fd.name == "control") {
      server.Serve(std::move(fd.fd), stop);
      has_clients = true;
    } else if (fd.name == "listen") {
      server.Listen(std::move(fd.fd));
      has_clients = true;
    } else {
      held.push_back(std::move(fd.fd));
    }
  }
  if (!has_clients) {
    return absl::FailedPreconditionError(
        "no socket \"control\" or \"listen\" was granted (LISTEN_FDS): the "
        "supervisor is started by `parley run` or `parley serve`");
  }
  if (absl::Status s = notifier->Notify("READY=1"); !s.ok()) return s;
  loop.Run();
  return absl::OkStatus();
}

}  // namespace
}  // namespace parley::supervisor

int main() {
  const absl::Status status = parley::supervisor::Run();
  if (status.ok()) return 0;
  fprintf(stderr, "supervisor: %s\n", status.ToString().c_str());
  return 1;
}

#include "ipc/process/fork_server.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "ipc/base/deadline.h"
#include "ipc/base/posix_error.h"
#include "ipc/base/unique_fd.h"
#include "ipc/process/exit_status.h"
#include "ipc/process/fork_protocol.h"

namespace ipc::process {
namespace {

// Ours and the server's.
absl::StatusOr<std::pair<UniqueFd, UniqueFd>> CreateControl() {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
    return PosixError(errno, "fork server: socketpair");
  }
  return std::make_pair(UniqueFd(ends[0]), UniqueFd(ends[1]));
}

// Whether `fd` is ready for `events` before the deadline.
bool WaitFor(int fd, short events, Deadline deadline) {
  while (true) {
    pollfd ready = {.fd = fd, .events = events, .revents = 0};
    const int n = poll(&ready, 1, deadline.PollTimeout());
    if (n > 0) return true;
    if (n == 0 && deadline.HasPassed()) return false;
  }
}

struct Answer {
  ForkAnswer head;
  std::string message;
  UniqueFd pidfd;
};

}  // namespace

class ForkServer::Client {
 public:
  Client(Process server, UniqueFd control)
      : server_(std::move(server)), control_(std::move(control)) {}

  absl::StatusOr<Process> Start(absl::string_view function,
                                absl::string_view argument,
                                absl::Span<const int> fds,
                                absl::Duration timeout) {
    if (function.size() + argument.size() > kMaxForkBytes) {
      return absl::InvalidArgumentError(absl::StrCat(
          "fork server: an argument of ", argument.size(), " bytes; at most ",
          kMaxForkBytes - function.size(),
          " go with a request: put them into a file (memfd_create) and grant "
          "that"));
    }
    if (fds.size() > kMaxForkFds) {
      return absl::InvalidArgumentError(
          absl::StrCat("fork server: ", fds.size(), " descriptors; at most ",
                       kMaxForkFds, " go with a request"));
    }
    if (getpid() != owner_) {
      return absl::FailedPreconditionError(
          absl::StrCat("fork server: it is process ", owner_,
                       "'s, which has forked this "
                       "one: create one here"));
    }
    const Deadline deadline = Deadline::After(timeout);
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) {
      return PosixError(errno, "fork server: a pipe for the exit status");
    }
    UniqueFd report(ends[0]);
    const UniqueFd server_end(ends[1]);

    if (absl::Status s = TakeTurn(deadline); !s.ok()) return s;
    const absl::Cleanup end_turn = [this] { EndTurn(); };
    if (!control_.ok()) {
      return absl::FailedPreconditionError(
          "fork server: it was stopped: create another one");
    }
    // For the child's pidfd. Better no child than one that nobody can have.
    UniqueFd room = ReserveFd();
    if (!room.ok()) {
      return PosixError(errno, "fork server: a descriptor for the process");
    }
    const uint64_t number = ++last_number_;
    std::vector<int> all = {server_end.get()};
    all.insert(all.end(), fds.begin(), fds.end());
    if (absl::Status s = Send(number, function, argument, all, deadline);
        !s.ok()) {
      return s;
    }
    while (true) {
      absl::StatusOr<Answer> answer = Receive(deadline, room);
      if (!answer.ok()) return answer.status();
      if (answer->head.number != number) {
        // To a request that somebody gave up. Nobody wants that child.
        if (answer->head.code == 0) Disown(answer->head.pid, deadline);
        answer->pidfd.Reset();
        room = ReserveFd();
        continue;
      }
      if (answer->head.code != 0) {
        return absl::Status(static_cast<absl::StatusCode>(answer->head.code),
                            absl::StrCat("fork server: starting \"", function,
                                         "\": ", answer->message));
      }
      if (!answer->pidfd.ok()) {
        // Another thread was faster in taking the room.
        Disown(answer->head.pid, deadline);
        return absl::ResourceExhaustedError(absl::StrCat(
            "fork server: no room here for a descriptor of process ",
            answer->head.pid, ", which was killed: raise RLIMIT_NOFILE"));
      }
      return Process(answer->head.pid, std::move(answer->pidfd),
                     std::move(report));
    }
  }

  absl::Status Stop(absl::Duration timeout) {
    const Deadline deadline = Deadline::After(timeout);
    if (absl::Status s = TakeTurn(deadline); !s.ok()) return s;
    const absl::Cleanup end_turn = [this] { EndTurn(); };
    control_.Reset();
    const absl::StatusOr<ExitStatus> status =
        server_.Join(deadline.Remaining());
    if (absl::IsDeadlineExceeded(status.status())) {
      return Annotate(status.status(),
                      "fork server: it waits for its children, and");
    }
    if (!status.ok()) return status.status();
    if (!status->success()) {
      return absl::UnavailableError(absl::StrCat(
          "fork server (process ", server_.pid(), "): ", status->ToString()));
    }
    return absl::OkStatus();
  }

  const Process& server() const { return server_; }

 private:
  // Who has the turn may use `control_`, join the server, and wait for it with
  // no lock held, so that the time-outs of others go on.
  absl::Status TakeTurn(Deadline deadline) {
    absl::MutexLock lock(&mutex_);
    const auto is_free = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return !busy_;
    };
    if (!mutex_.AwaitWithTimeout(absl::Condition(&is_free),
                                 deadline.Remaining())) {
      return Silent();
    }
    busy_ = true;
    return absl::OkStatus();
  }
  void EndTurn() {
    absl::MutexLock lock(&mutex_);
    busy_ = false;
  }

  // Some descriptor, whose number is free again once it is closed.
  UniqueFd ReserveFd() const {
    return UniqueFd(fcntl(control_.get(), F_DUPFD_CLOEXEC, 0));
  }

  // Of a server that is gone, its children's fate is unknown anyway.
  void Disown(pid_t child, Deadline deadline) {
    Send(static_cast<uint64_t>(child), "", "", {}, deadline).IgnoreError();
  }

  absl::Status Send(uint64_t number, absl::string_view function,
                    absl::string_view argument, const std::vector<int>& fds,
                    Deadline deadline) {
    ForkRequest request = {.number = number,
                           .name_bytes = static_cast<uint32_t>(function.size()),
                           .fd_count = static_cast<uint32_t>(fds.size())};
    iovec bytes[] = {{.iov_base = &request, .iov_len = sizeof(request)},
                     {.iov_base = const_cast<char*>(function.data()),
                      .iov_len = function.size()},
                     {.iov_base = const_cast<char*>(argument.data()),
                      .iov_len = argument.size()}};
    alignas(
        cmsghdr) char space[CMSG_SPACE((kMaxForkFds + 1) * sizeof(int))] = {};
    msghdr message = {};
    message.msg_iov = bytes;
    message.msg_iovlen = 3;
    if (!fds.empty()) {
      message.msg_control = space;
      message.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
      cmsghdr* part = CMSG_FIRSTHDR(&message);
      part->cmsg_level = SOL_SOCKET;
      part->cmsg_type = SCM_RIGHTS;
      part->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
      std::memcpy(CMSG_DATA(part), fds.data(), fds.size() * sizeof(int));
    }
    const int control = control_.get();
    while (true) {
      if (RetryOnEintr([&] {
            return sendmsg(control, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
          }) >= 0) {
        return absl::OkStatus();
      }
      if (errno == EPIPE || errno == ECONNRESET) return Gone();
      if (errno != EAGAIN) {
        return PosixError(errno,
                          "fork server: handing it a request and descriptors");
      }
      if (!WaitFor(control, POLLOUT, deadline)) return Silent();
    }
  }

  // Closes `room` when a descriptor may come.
  absl::StatusOr<Answer> Receive(Deadline deadline, UniqueFd& room) {
    const int control = control_.get();
    if (!WaitFor(control, POLLIN, deadline)) return Silent();
    room.Reset();
    Answer answer = {};
    char text[kMaxForkMessageBytes];
    iovec bytes[] = {{.iov_base = &answer.head, .iov_len = sizeof(answer.head)},
                     {.iov_base = text, .iov_len = sizeof(text)}};
    alignas(cmsghdr) char space[CMSG_SPACE(sizeof(int))];
    msghdr message = {};
    message.msg_iov = bytes;
    message.msg_iovlen = 2;
    message.msg_control = space;
    message.msg_controllen = sizeof(space);
    const ssize_t n = RetryOnEintr(
        [&] { return recvmsg(control, &message, MSG_CMSG_CLOEXEC); });
    const cmsghdr* part = n < 0 ? nullptr : CMSG_FIRSTHDR(&message);
    if (part != nullptr && part->cmsg_type == SCM_RIGHTS) {
      int pidfd;
      std::memcpy(&pidfd, CMSG_DATA(part), sizeof(int));
      answer.pidfd.Reset(pidfd);
    }
    if (n == 0 || (n < 0 && errno == ECONNRESET)) return Gone();
    if (n < 0) return PosixError(errno, "fork server: receiving its answer");
    if (n < static_cast<ssize_t>(sizeof(answer.head))) {
      return absl::DataLossError(
          "fork server: its answer is none: does the program call ServeForks?");
    }
    answer.message.assign(text, static_cast<size_t>(n) - sizeof(answer.head));
    return answer;
  }

  absl::Status Gone() {
    // The socket closes a moment before the process has ended.
    const absl::StatusOr<ExitStatus> status = server_.Join(absl::Seconds(1));
    return absl::UnavailableError(absl::StrCat(
        "fork server (process ", server_.pid(), ") ",
        status.ok() ? status->ToString() : "has closed its socket",
        ": create another one; children that it started live on, but how they "
        "end is unknown"));
  }

  absl::Status Silent() const {
    return absl::DeadlineExceededError(
        absl::StrCat("fork server (process ", server_.pid(),
                     ") has not answered in time: is it stopped?"));
  }

  const pid_t owner_ = getpid();
  absl::Mutex mutex_;
  bool busy_ ABSL_GUARDED_BY(mutex_) = false;
  // Of who has the turn:
  Process server_;
  UniqueFd control_;
  uint64_t last_number_ = 0;
};

ForkServer::ForkServer(std::unique_ptr<Client> client)
    : client_(std::move(client)) {}
ForkServer::ForkServer(ForkServer&&) noexcept = default;
ForkServer& ForkServer::operator=(ForkServer&&) noexcept = default;
ForkServer::~ForkServer() = default;

absl::StatusOr<ForkServer> ForkServer::Create(
    ForkFunctions functions, const ForkServerOptions& options) {
  absl::StatusOr<std::pair<UniqueFd, UniqueFd>> control = CreateControl();
  if (!control.ok()) return control.status();
  UniqueFd& ours = control->first;
  UniqueFd& theirs = control->second;
  StartOptions start = {.keep_fds = options.keep_fds};
  start.keep_fds->push_back(theirs.get());
  absl::StatusOr<Process> server = Process::Start(
      [&] { return ServeForks(functions, std::move(theirs), options); }, start);
  if (!server.ok()) return Annotate(server.status(), "fork server");
  return ForkServer(
      std::make_unique<Client>(*std::move(server), std::move(ours)));
}

absl::StatusOr<ForkServer> ForkServer::CreateFromProgram(SpawnOptions program) {
  absl::StatusOr<std::pair<UniqueFd, UniqueFd>> control = CreateControl();
  if (!control.ok()) return control.status();
  auto& [ours, theirs] = *control;
  if (!program.fds.emplace(kForkServerFd, theirs.get()).second) {
    return absl::InvalidArgumentError(
        absl::StrCat("fork server: descriptor ", kForkServerFd,
                     " is for its socket: give the program another number"));
  }
  absl::StatusOr<Process> server = Spawn(program);
  if (!server.ok()) return Annotate(server.status(), "fork server");
  return ForkServer(
      std::make_unique<Client>(*std::move(server), std::move(ours)));
}

absl::StatusOr<Process> ForkServer::Start(absl::string_view function,
                                          absl::string_view argument,
                                          absl::Span<const int> fds,
                                          absl::Duration timeout) {
  return client_->Start(function, argument, fds, timeout);
}

absl::Status ForkServer::Stop(absl::Duration timeout) {
  return client_->Stop(timeout);
}

const Process& ForkServer::server() const { return client_->server(); }

}  // namespace ipc::process

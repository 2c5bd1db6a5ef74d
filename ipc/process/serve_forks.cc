#include "ipc/process/serve_forks.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "ipc/base/posix_error.h"
#include "ipc/process/fork_protocol.h"
#include "ipc/process/process.h"

namespace ipc::process {
namespace {

class Server {
 public:
  Server(const ForkFunctions& functions, UniqueFd control,
         const ForkServerOptions& options)
      : functions_(functions), options_(options), control_(std::move(control)) {
    buffer_.resize(sizeof(ForkRequest) + kMaxForkBytes);
  }

  int Run() {
    if (!ReceiveGreeting()) return 1;
    sigset_t blocked;
    sigemptyset(&blocked);
    for (const int signal : {SIGCHLD, SIGPIPE, SIGINT}) {
      sigaddset(&blocked, signal);
    }
    sigprocmask(SIG_BLOCK, &blocked, &mask_of_children_);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGCHLD);
    ends_.Reset(signalfd(-1, &blocked, SFD_CLOEXEC | SFD_NONBLOCK));
    if (!ends_.ok()) return 1;

    while (control_.ok() || !reports_.empty()) {
      pollfd ready[] = {{control_.get(), POLLIN, 0},
                        {ends_.get(), POLLIN, 0},
                        {client_.get(), POLLIN, 0}};
      if (poll(ready, 3, -1) < 0) continue;
      if (ready[2].revents != 0) return 0;
      if (ready[1].revents != 0) ReapAll();
      if (ready[0].revents != 0) ServeOne();
    }
    return 0;
  }

 private:
  void ReapAll() {
    // Before the children are looked for: a SIGCHLD that comes later counts.
    signalfd_siginfo info;
    while (read(ends_.get(), &info, sizeof(info)) > 0) {
    }
    int status = 0;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
      const auto report = reports_.find(pid);
      if (report == reports_.end()) continue;  // an orphan that came to us
      ExitReport text = {};
      if (WIFSIGNALED(status)) {
        text.signal = WTERMSIG(status);
      } else {
        text.code = WEXITSTATUS(status);
      }
      // Nobody may want to know any more.
      (void)!write(report->second.get(), &text, sizeof(text));
      reports_.erase(report);
    }
  }

  // It has been sent before this process was started.
  bool ReceiveGreeting() {
    std::vector<UniqueFd> fds;
    if (ReceivePacket(fds) != sizeof(ForkRequest) || fds.size() != 1) {
      return false;
    }
    client_ = std::move(fds.front());
    return true;
  }

  // Into `buffer_`, as recvmsg.
  ssize_t ReceivePacket(std::vector<UniqueFd>& fds) {
    alignas(cmsghdr) char space[CMSG_SPACE((kMaxForkFds + 1) * sizeof(int))];
    iovec bytes = {.iov_base = buffer_.data(), .iov_len = buffer_.size()};
    msghdr message = {};
    message.msg_iov = &bytes;
    message.msg_iovlen = 1;
    message.msg_control = space;
    message.msg_controllen = sizeof(space);
    const ssize_t n = RetryOnEintr([&] {
      return recvmsg(control_.get(), &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    });
    if (n >= 0) fds = TakeFds(message);
    return n;
  }

  void ServeOne() {
    std::vector<UniqueFd> fds;
    const ssize_t n = ReceivePacket(fds);
    if (n < 0 && errno == EAGAIN) return;
    ForkRequest request;
    if (n < static_cast<ssize_t>(sizeof(request))) {
      control_.Reset();  // the end, an error, or nonsense
      return;
    }
    std::memcpy(&request, buffer_.data(), sizeof(request));
    const absl::string_view text(buffer_.data() + sizeof(request),
                                 static_cast<size_t>(n) - sizeof(request));
    if (request.name_bytes > text.size()) {
      control_.Reset();
      return;
    }
    if (request.fd_count == 0) return KillDisowned(request.number);
    if (fds.size() != request.fd_count) {
      Answer(request.number,
             absl::ResourceExhaustedError(absl::StrCat(
                 "of ", request.fd_count, " descriptors only ", fds.size(),
                 " fit into the server: raise its RLIMIT_NOFILE")));
      return;
    }
    UniqueFd report = std::move(fds.front());
    fds.erase(fds.begin());
    if (HasNoReader(report.get())) {
      Answer(request.number, absl::CancelledError("the client gave up"));
      return;
    }
    Answer(request.number, Fork(text.substr(0, request.name_bytes),
                                text.substr(request.name_bytes), std::move(fds),
                                std::move(report)));
  }

  // If it has not been reaped, and so is who it was.
  void KillDisowned(uint64_t pid) {
    const auto child = reports_.find(static_cast<pid_t>(pid));
    if (child != reports_.end()) kill(child->first, SIGKILL);
  }

  static bool HasNoReader(int pipe) {
    pollfd end = {.fd = pipe, .events = 0, .revents = 0};
    return poll(&end, 1, 0) == 1 && (end.revents & POLLERR) != 0;
  }

  static std::vector<UniqueFd> TakeFds(const msghdr& message) {
    std::vector<UniqueFd> fds;
    auto* header = const_cast<msghdr*>(&message);
    for (cmsghdr* part = CMSG_FIRSTHDR(header); part != nullptr;
         part = CMSG_NXTHDR(header, part)) {
      if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) {
        continue;
      }
      const size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
      for (size_t i = 0; i < count; ++i) {
        int fd;
        std::memcpy(&fd, CMSG_DATA(part) + i * sizeof(int), sizeof(int));
        fds.emplace_back(fd);
      }
    }
    return fds;
  }

  absl::StatusOr<Process> Fork(absl::string_view name,
                               absl::string_view argument,
                               std::vector<UniqueFd> fds, UniqueFd report) {
    const auto function = functions_.find(name);
    if (function == functions_.end()) {
      return absl::NotFoundError(
          absl::StrCat("no function \"", name, "\" is registered, but: ",
                       absl::StrJoin(functions_, ", ",
                                     [](std::string* out, const auto& entry) {
                                       absl::StrAppend(out, entry.first);
                                     })));
    }
    StartOptions start = {.keep_fds = options_.keep_fds,
                          .death_signal = options_.death_signal};
    for (const UniqueFd& fd : fds) start.keep_fds->push_back(fd.get());
    absl::StatusOr<Process> child = Process::Start(
        [&] {
          // By the function that Start has just called: the page is there.
          pthread_sigmask(SIG_SETMASK, &mask_of_children_, nullptr);
          return function->second(argument, std::move(fds));
        },
        start);
    if (child.ok()) reports_[child->pid()] = std::move(report);
    return child;
  }

  void Answer(uint64_t number, const absl::StatusOr<Process>& child) {
    ForkAnswer answer = {.number = number,
                         .code = static_cast<int32_t>(child.status().code()),
                         .pid = child.ok() ? child->pid() : 0};
    const absl::string_view text =
        child.status().message().substr(0, kMaxForkMessageBytes);
    iovec bytes[] = {
        {.iov_base = &answer, .iov_len = sizeof(answer)},
        {.iov_base = const_cast<char*>(text.data()), .iov_len = text.size()}};
    msghdr message = {};
    message.msg_iov = bytes;
    message.msg_iovlen = 2;
    alignas(cmsghdr) char space[CMSG_SPACE(sizeof(int))] = {};
    if (child.ok()) {
      message.msg_control = space;
      message.msg_controllen = sizeof(space);
      cmsghdr* part = CMSG_FIRSTHDR(&message);
      part->cmsg_level = SOL_SOCKET;
      part->cmsg_type = SCM_RIGHTS;
      part->cmsg_len = CMSG_LEN(sizeof(int));
      const int pidfd = child->poll_fd();
      std::memcpy(CMSG_DATA(part), &pidfd, sizeof(int));
    }
    // A client that has gone shows at the next poll.
    if (RetryOnEintr([&] {
          return sendmsg(control_.get(), &message, MSG_NOSIGNAL);
        }) < 0 &&
        child.ok()) {
      // ETOOMANYREFS: too many descriptors of this user are on their way.
      const absl::Status status = PosixError(
          errno, "handing the process' descriptor over: it was killed");
      KillDisowned(answer.pid);
      Answer(number, status);
    }
  }

  const ForkFunctions& functions_;
  const ForkServerOptions& options_;
  UniqueFd control_;  // until the client has closed its end
  UniqueFd client_;   // its pidfd
  UniqueFd ends_;     // a signalfd of SIGCHLD
  sigset_t mask_of_children_ = {};
  std::map<pid_t, UniqueFd> reports_;  // of the children that live
  std::string buffer_;
};

}  // namespace

int ServeForks(const ForkFunctions& functions, UniqueFd control,
               const ForkServerOptions& options) {
  // So that no program that a child executes has it.
  fcntl(control.get(), F_SETFD, FD_CLOEXEC);
  return Server(functions, std::move(control), options).Run();
}

}  // namespace ipc::process

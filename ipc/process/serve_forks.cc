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
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/types/span.h"
#include "ipc/base/posix_error.h"
#include "ipc/process/fork_protocol.h"
#include "ipc/process/process.h"

namespace ipc::process {
namespace {

// After so long without anything to do a spare child is forked: not at once,
// when it would take a CPU from the child that was just started, or from the
// next request.
constexpr int kIdleMs = 1;

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
      const bool wants_spare =
          options_.keep_spare && control_.ok() && !spare_.has_value();
      pollfd ready[] = {{control_.get(), POLLIN, 0},
                        {ends_.get(), POLLIN, 0},
                        {client_.get(), POLLIN, 0}};
      int n = poll(ready, 3, wants_spare ? kIdleMs : -1);
      if (n == 0) {
        MakeSpare();
        n = poll(ready, 3, -1);
      }
      if (n < 0) continue;
      if (ready[2].revents != 0) break;
      if (ready[1].revents != 0) ReapAll();
      if (ready[0].revents != 0) ServeOne();
      if (!control_.ok()) EndSpare();
    }
    EndSpare();
    return 0;
  }

 private:
  // A child that waits for what it is to do.
  struct Spare {
    Process process;
    UniqueFd control;  // takes a request as it came, and the granted fds
  };

  // If that fails, the next request tells why.
  void MakeSpare() {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
      return;
    }
    UniqueFd ours(ends[0]);
    UniqueFd theirs(ends[1]);
    absl::StatusOr<Process> child = Process::Start(
        [&] { return BeSpare(std::move(theirs)); }, Options({&theirs, 1}));
    if (child.ok()) spare_.emplace(Spare{*std::move(child), std::move(ours)});
  }

  int BeSpare(UniqueFd control) {
    std::vector<UniqueFd> fds;
    const ssize_t n = ReceivePacket(control.get(), 0, fds);
    control.Reset();
    if (n <= 0) return 0;  // the server has ended
    // A Ctrl-C before there was a request was not meant for it.
    sigset_t early;
    sigemptyset(&early);
    sigaddset(&early, SIGINT);
    const timespec now = {};
    while (sigtimedwait(&early, nullptr, &now) > 0) {
    }
    const Request request = Parse(static_cast<size_t>(n));
    return Run(functions_.find(request.name)->second, request.argument,
               std::move(fds));
  }

  // The spare child, which now runs that request; none if there is none.
  std::optional<Process> TakeSpare(absl::string_view packet,
                                   const std::vector<UniqueFd>& fds) {
    if (!spare_.has_value()) return std::nullopt;
    iovec bytes = {.iov_base = const_cast<char*>(packet.data()),
                   .iov_len = packet.size()};
    std::vector<int> numbers;
    for (const UniqueFd& fd : fds) numbers.push_back(fd.get());
    if (SendForkPacket(spare_->control.get(), {&bytes, 1}, numbers,
                       MSG_DONTWAIT) < 0) {
      return std::nullopt;  // somebody has killed it, or there is no room
    }
    std::optional<Process> child = std::move(spare_->process);
    spare_.reset();
    return child;
  }

  // So that it does not outlive us, not for a moment.
  void EndSpare() {
    if (!spare_.has_value()) return;
    spare_->process.Kill().IgnoreError();
    RetryOnEintr([&] { return waitpid(spare_->process.pid(), nullptr, 0); });
    spare_.reset();
  }

  void ReapAll() {
    // Before the children are looked for: a SIGCHLD that comes later counts.
    signalfd_siginfo info;
    while (read(ends_.get(), &info, sizeof(info)) > 0) {
    }
    int status = 0;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
      if (spare_.has_value() && spare_->process.pid() == pid) spare_.reset();
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
    if (ReceivePacket(control_.get(), MSG_DONTWAIT, fds) !=
            sizeof(ForkRequest) ||
        fds.size() != 1) {
      return false;
    }
    client_ = std::move(fds.front());
    return true;
  }

  // Into `buffer_`, as recvmsg.
  ssize_t ReceivePacket(int control, int flags, std::vector<UniqueFd>& fds) {
    alignas(cmsghdr) char space[CMSG_SPACE((kMaxForkFds + 1) * sizeof(int))];
    iovec bytes = {.iov_base = buffer_.data(), .iov_len = buffer_.size()};
    msghdr message = {};
    message.msg_iov = &bytes;
    message.msg_iovlen = 1;
    message.msg_control = space;
    message.msg_controllen = sizeof(space);
    const ssize_t n = RetryOnEintr(
        [&] { return recvmsg(control, &message, MSG_CMSG_CLOEXEC | flags); });
    if (n >= 0) fds = TakeFds(message);
    return n;
  }

  void ServeOne() {
    std::vector<UniqueFd> fds;
    const ssize_t n = ReceivePacket(control_.get(), MSG_DONTWAIT, fds);
    if (n < 0 && errno == EAGAIN) return;
    if (n < static_cast<ssize_t>(sizeof(ForkRequest))) {
      control_.Reset();  // the end, an error, or nonsense
      return;
    }
    const Request request = Parse(static_cast<size_t>(n));
    const uint64_t number = request.head.number;
    const uint32_t fd_count = request.head.fd_count;
    if (request.head.name_bytes != request.name.size()) {
      control_.Reset();
      return;
    }
    if (fd_count == 0) return KillDisowned(number);
    if (fds.size() != fd_count) {
      Answer(number, absl::ResourceExhaustedError(absl::StrCat(
                         "of ", fd_count, " descriptors only ", fds.size(),
                         " fit into the server: raise its RLIMIT_NOFILE")));
      return;
    }
    UniqueFd report = std::move(fds.front());
    fds.erase(fds.begin());
    if (HasNoReader(report.get())) {
      Answer(number, absl::CancelledError("the client gave up"));
      return;
    }
    Answer(number, StartChild(request, std::move(fds), std::move(report)));
  }

  // What is in `buffer_`.
  struct Request {
    ForkRequest head;
    absl::string_view name;  // shorter than head.name_bytes if that is nonsense
    absl::string_view argument;
    absl::string_view packet;  // all of it
  };

  // `bytes` of `buffer_`, which begin with a ForkRequest.
  Request Parse(size_t bytes) const {
    Request request = {};
    request.packet = {buffer_.data(), bytes};
    std::memcpy(&request.head, buffer_.data(), sizeof(request.head));
    const absl::string_view text = request.packet.substr(sizeof(request.head));
    request.name = text.substr(0, request.head.name_bytes);
    request.argument = text.substr(request.name.size());
    return request;
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

  // What children have besides the standard three: `more`, and what the options
  // say.
  StartOptions Options(absl::Span<const UniqueFd> more) const {
    StartOptions start = {.keep_fds = options_.keep_fds,
                          .death_signal = options_.death_signal};
    for (const UniqueFd& fd : more) start.keep_fds->push_back(fd.get());
    return start;
  }

  // In a child.
  int Run(const ForkFunction& function, absl::string_view argument,
          std::vector<UniqueFd> fds) const {
    pthread_sigmask(SIG_SETMASK, &mask_of_children_, nullptr);
    return function(argument, std::move(fds));
  }

  absl::StatusOr<Process> StartChild(const Request& request,
                                     std::vector<UniqueFd> fds,
                                     UniqueFd report) {
    const auto function = functions_.find(request.name);
    if (function == functions_.end()) {
      return absl::NotFoundError(absl::StrCat(
          "no function \"", request.name, "\" is registered, but: ",
          absl::StrJoin(functions_, ", ",
                        [](std::string* out, const auto& entry) {
                          absl::StrAppend(out, entry.first);
                        })));
    }
    if (std::optional<Process> spare = TakeSpare(request.packet, fds)) {
      reports_[spare->pid()] = std::move(report);
      return *std::move(spare);
    }
    absl::StatusOr<Process> child = Process::Start(
        [&] { return Run(function->second, request.argument, std::move(fds)); },
        Options(fds));
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
    std::vector<int> fds;
    if (child.ok()) fds.push_back(child->poll_fd());
    // A client that has gone shows at the next poll.
    if (SendForkPacket(control_.get(), bytes, fds, 0) < 0 && child.ok()) {
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
  std::optional<Spare> spare_;
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

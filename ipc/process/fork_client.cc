#include "ipc/process/fork_client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "ipc/base/posix_error.h"
#include "ipc/process/exit_status.h"
#include "ipc/process/fork_protocol.h"

namespace ipc::process {
namespace {

// Whether `fd` is ready for `events` before the deadline.
bool WaitFor(int fd, short events, Deadline deadline) {
  while (true) {
    pollfd ready = {.fd = fd, .events = events, .revents = 0};
    const int n = poll(&ready, 1, deadline.PollTimeout());
    if (n > 0) return true;
    if (n == 0 && deadline.HasPassed()) return false;
  }
}

// Which must not wait.
ssize_t SendPacket(int control, absl::Span<iovec> bytes,
                   absl::Span<const int> fds) {
  return SendForkPacket(control, bytes, fds, MSG_DONTWAIT);
}

struct Control {
  UniqueFd ours;
  UniqueFd servers;
};

// With the greeting in it, so that the server finds it whatever becomes of us.
absl::StatusOr<Control> CreateControl() {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
    return PosixError(errno, "fork server: socketpair");
  }
  Control control = {.ours = UniqueFd(ends[0]), .servers = UniqueFd(ends[1])};
  const UniqueFd self(static_cast<int>(syscall(SYS_pidfd_open, getpid(), 0)));
  if (!self.ok()) return PosixError(errno, "fork server: pidfd_open of itself");
  ForkRequest greeting = {.number = 0, .name_bytes = 0, .fd_count = 1};
  iovec bytes[] = {{.iov_base = &greeting, .iov_len = sizeof(greeting)}};
  if (SendPacket(ends[0], absl::MakeSpan(bytes), {self.get()}) < 0) {
    return PosixError(errno, "fork server: greeting it");
  }
  return control;
}

}  // namespace

struct ForkClient::Answer {
  ForkAnswer head;
  std::string message;
  UniqueFd pidfd;
};

absl::StatusOr<std::unique_ptr<ForkClient>> ForkClient::Create(
    ForkFunctions functions, const ForkServerOptions& options) {
  absl::StatusOr<Control> control = CreateControl();
  if (!control.ok()) return control.status();
  UniqueFd& theirs = control->servers;
  StartOptions start = {.keep_fds = options.keep_fds};
  start.keep_fds->push_back(theirs.get());
  absl::StatusOr<Process> server = Process::Start(
      [&] { return ServeForks(functions, std::move(theirs), options); }, start);
  if (!server.ok()) return Annotate(server.status(), "fork server");
  return std::unique_ptr<ForkClient>(
      new ForkClient(*std::move(server), std::move(control->ours)));
}

absl::StatusOr<std::unique_ptr<ForkClient>> ForkClient::CreateFromProgram(
    SpawnOptions program) {
  absl::StatusOr<Control> control = CreateControl();
  if (!control.ok()) return control.status();
  if (!program.fds.emplace(kForkServerFd, control->servers.get()).second) {
    return absl::InvalidArgumentError(
        absl::StrCat("fork server: descriptor ", kForkServerFd,
                     " is for its socket: give the program another number"));
  }
  absl::StatusOr<Process> server = Spawn(program);
  if (!server.ok()) return Annotate(server.status(), "fork server");
  return std::unique_ptr<ForkClient>(
      new ForkClient(*std::move(server), std::move(control->ours)));
}

ForkClient::~ForkClient() {
  // The socket is the owner's, too.
  if (getpid() == owner_) Close();
}

absl::Status ForkClient::CheckUsable() const {
  if (getpid() != owner_) {
    return absl::FailedPreconditionError(
        absl::StrCat("fork server: it is process ", owner_,
                     "'s, which has forked this one: create one here"));
  }
  if (!control_.ok()) {
    return absl::FailedPreconditionError(
        "fork server: it was stopped: create another one");
  }
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> ForkClient::Request(absl::string_view function,
                                             absl::string_view argument,
                                             absl::Span<const int> fds,
                                             Deadline deadline) {
  if (function.size() + argument.size() > kMaxForkBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "fork server: an argument of ", argument.size(), " bytes; at most ",
        kMaxForkBytes - std::min(kMaxForkBytes, function.size()),
        " go with a request: put them into a file (memfd_create) and grant "
        "that"));
  }
  if (fds.size() > kMaxForkFds) {
    return absl::InvalidArgumentError(
        absl::StrCat("fork server: ", fds.size(), " descriptors; at most ",
                     kMaxForkFds, " go with a request"));
  }
  if (absl::Status s = CheckUsable(); !s.ok()) return s;
  SendDisowned();
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) {
    return PosixError(errno, "fork server: a pipe for the exit status");
  }
  const UniqueFd server_end(ends[1]);
  Asked asked = {.number = ++last_number_,
                 .report = UniqueFd(ends[0]),
                 // For the child's pidfd. Better no child than one that nobody
                 // can have.
                 .room = UniqueFd(fcntl(control_.get(), F_DUPFD_CLOEXEC, 0)),
                 .function = std::string(function)};
  if (!asked.room.ok()) {
    return PosixError(errno, "fork server: a descriptor for the process");
  }
  std::vector<int> all = {server_end.get()};
  all.insert(all.end(), fds.begin(), fds.end());
  if (absl::Status s = Send(asked.number, function, argument, all, deadline);
      !s.ok()) {
    return s;
  }
  asked_.push_back(std::move(asked));
  return asked_.back().number;
}

absl::StatusOr<Process> ForkClient::Await(uint64_t number, Deadline deadline) {
  if (absl::Status s = CheckUsable(); !s.ok()) return s;
  while (true) {
    const auto answered = answered_.find(number);
    if (answered != answered_.end()) {
      absl::StatusOr<Process> child = std::move(answered->second);
      answered_.erase(answered);
      return child;
    }
    if (absl::Status s = Receive(deadline); !s.ok()) {
      if (!absl::IsDeadlineExceeded(s)) GiveUp(number);
      return s;
    }
  }
}

void ForkClient::GiveUp(uint64_t number) {
  const auto answered = answered_.find(number);
  if (answered != answered_.end()) {
    if (answered->second.ok()) answered->second->Kill().IgnoreError();
    answered_.erase(answered);
  }
  for (Asked& asked : asked_) {
    if (asked.number != number) continue;
    asked.report.Reset();
    asked.room.Reset();
  }
}

absl::Status ForkClient::Stop(Deadline deadline) {
  if (getpid() != owner_) return CheckUsable();
  Close();
  const absl::StatusOr<ExitStatus> status = server_.Join(deadline.Remaining());
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

void ForkClient::Close() {
  if (!control_.ok()) return;
  for (Asked& asked : asked_) asked.report.Reset();
  for (auto& [number, child] : answered_) {
    if (child.ok()) child->Kill().IgnoreError();
  }
  answered_.clear();
  // From here on the server cannot send an answer, and kills the child of one;
  // and no request is served whose report nobody can read. What it has sent
  // before is here.
  shutdown(control_.get(), SHUT_RD);
  while (Receive(Deadline::After(absl::ZeroDuration())).ok()) {
  }
  asked_.clear();
  SendDisowned();
  control_.Reset();
}

void ForkClient::Disown(const Answer& answer) {
  if (answer.head.code != 0) return;
  if (answer.pidfd.ok()) {
    syscall(SYS_pidfd_send_signal, answer.pidfd.get(), SIGKILL, nullptr, 0);
    return;
  }
  disowned_.push_back(answer.head.pid);
  SendDisowned();
}

void ForkClient::SendDisowned() {
  while (!disowned_.empty()) {
    const absl::Status status =
        Send(static_cast<uint64_t>(disowned_.back()), "", "", {},
             Deadline::After(absl::ZeroDuration()));
    if (absl::IsDeadlineExceeded(status)) return;
    // If the server is gone, so is who could tell whose number it is.
    disowned_.pop_back();
  }
}

absl::Status ForkClient::Send(uint64_t number, absl::string_view function,
                              absl::string_view argument,
                              const std::vector<int>& fds, Deadline deadline) {
  ForkRequest request = {.number = number,
                         .name_bytes = static_cast<uint32_t>(function.size()),
                         .fd_count = static_cast<uint32_t>(fds.size())};
  iovec bytes[] = {{.iov_base = &request, .iov_len = sizeof(request)},
                   {.iov_base = const_cast<char*>(function.data()),
                    .iov_len = function.size()},
                   {.iov_base = const_cast<char*>(argument.data()),
                    .iov_len = argument.size()}};
  while (SendPacket(control_.get(), absl::MakeSpan(bytes), fds) < 0) {
    if (errno == EPIPE || errno == ECONNRESET) return Gone(deadline);
    if (errno != EAGAIN) {
      return PosixError(errno,
                        "fork server: handing it a request and descriptors");
    }
    if (!WaitFor(control_.get(), POLLOUT, deadline)) return Silent();
  }
  return absl::OkStatus();
}

absl::Status ForkClient::Receive(Deadline deadline) {
  if (!WaitFor(control_.get(), POLLIN, deadline)) return Silent();
  // So that the child's pidfd finds room. (At the end of the stream nobody is
  // left who could have a use for it.)
  if (!asked_.empty()) asked_.front().room.Reset();
  absl::StatusOr<Answer> answer = ReceiveAnswer();
  if (!answer.ok()) {
    return absl::IsUnavailable(answer.status()) ? Gone(deadline)
                                                : answer.status();
  }
  if (asked_.empty() || asked_.front().number != answer->head.number) {
    return absl::DataLossError("fork server: an answer to no request");
  }
  Asked asked = std::move(asked_.front());
  asked_.pop_front();
  if (asked.report.ok()) {
    const uint64_t number = asked.number;
    answered_.emplace(number, Accept(std::move(asked), *std::move(answer)));
  } else {
    Disown(*answer);
  }
  return absl::OkStatus();
}

absl::StatusOr<Process> ForkClient::Accept(Asked asked, Answer answer) {
  if (answer.head.code != 0) {
    return absl::Status(static_cast<absl::StatusCode>(answer.head.code),
                        absl::StrCat("fork server: starting \"", asked.function,
                                     "\": ", answer.message));
  }
  if (!answer.pidfd.ok()) {
    // Another thread was faster in taking the room.
    Disown(answer);
    return absl::ResourceExhaustedError(absl::StrCat(
        "fork server: no room here for a descriptor of process ",
        answer.head.pid, ", which was killed: raise RLIMIT_NOFILE"));
  }
  return Process(answer.head.pid, std::move(answer.pidfd),
                 std::move(asked.report));
}

// Unavailable at the end of the stream.
absl::StatusOr<ForkClient::Answer> ForkClient::ReceiveAnswer() {
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
  const ssize_t n = RetryOnEintr([&] {
    return recvmsg(control_.get(), &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  });
  const cmsghdr* part = n < 0 ? nullptr : CMSG_FIRSTHDR(&message);
  if (part != nullptr && part->cmsg_type == SCM_RIGHTS) {
    int pidfd;
    std::memcpy(&pidfd, CMSG_DATA(part), sizeof(int));
    answer.pidfd.Reset(pidfd);
  }
  if (n == 0 || (n < 0 && errno == ECONNRESET)) {
    return absl::UnavailableError("fork server: its end of the socket");
  }
  if (n < 0) return PosixError(errno, "fork server: receiving its answer");
  if (n < static_cast<ssize_t>(sizeof(answer.head))) {
    return absl::DataLossError(
        "fork server: its answer is none: does the program call ServeForks?");
  }
  answer.message.assign(text, static_cast<size_t>(n) - sizeof(answer.head));
  return answer;
}

absl::Status ForkClient::Gone(Deadline deadline) {
  // The socket closes a moment before the process has ended.
  const absl::StatusOr<ExitStatus> status =
      server_.Join(std::min(deadline.Remaining(), absl::Seconds(1)));
  return absl::UnavailableError(absl::StrCat(
      "fork server (process ", server_.pid(), ") ",
      status.ok() ? status->ToString() : "has closed its socket",
      ": create another one; children that it started live on, but how they "
      "end is unknown"));
}

absl::Status ForkClient::Silent() const {
  return absl::DeadlineExceededError(
      absl::StrCat("fork server (process ", server_.pid(),
                   ") has not answered in time: is it stopped?"));
}

}  // namespace ipc::process

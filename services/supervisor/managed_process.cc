#include "services/supervisor/managed_process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "ipc/base/posix_error.h"
#include "ipc/process/exit_status.h"
#include "ipc/process/spawn.h"
#include "services/supervisor/proto_time.h"

namespace parley::supervisor {
namespace {

using ::ipc::PosixError;
using ::ipc::UniqueFd;

constexpr size_t kLogBytes = size_t{1} << 20;
constexpr absl::Duration kDefaultGrace = absl::Seconds(5);
constexpr int kFirstGrantedFd = 3;  // SD_LISTEN_FDS_START

// How long the output of a process that has ended may stay open: a descendant
// that left its process group can hold it. Those are killed (see orphans.h), so
// this passes only for one that hides from us.
constexpr absl::Duration kDrainLimit = absl::Seconds(2);

// Between two events that tell no more than another STATUS=. A process may send
// one for every message it handles, and the history is for what all processes
// do.
constexpr absl::Duration kStatusInterval = absl::Milliseconds(100);

// Notifications that are read before others have their turn; the rest comes
// with the next event. And when the process has ended, far more than the
// socket's queue holds (net.unix.max_dgram_qlen).
constexpr int kNotificationsAtOnce = 16;
constexpr int kLastNotifications = 65536;

// A pipe whose read end, and only that, does not block.
absl::StatusOr<std::pair<UniqueFd, UniqueFd>> CreateOutputPipe() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return PosixError(errno, "pipe for output");
  std::pair<UniqueFd, UniqueFd> pipe{UniqueFd(ends[0]), UniqueFd(ends[1])};
  if (fcntl(pipe.first.get(), F_SETFL, O_NONBLOCK) != 0) {
    return PosixError(errno, "O_NONBLOCK on a pipe for output");
  }
  return pipe;
}

// `result`, and after them those of the spec.
ManagedProcess::Limits WithLimits(ManagedProcess::Limits result,
                                  const v1::Limits& limits) {
  for (const auto& [resource, value] :
       {std::pair<int, rlim_t>{RLIMIT_AS, limits.memory_bytes()},
        {RLIMIT_CPU, limits.cpu_seconds()},
        {RLIMIT_NOFILE, limits.files()},
        {RLIMIT_NPROC, limits.processes()}}) {
    if (value == 0) continue;
    result.push_back({resource, {.rlim_cur = value, .rlim_max = value}});
  }
  return result;
}

}  // namespace

ManagedProcess::ManagedProcess(EventLoop& loop, Observer& observer,
                               const Limits& limits, const std::string& session,
                               const v1::ProcessSpec& spec)
    : loop_(loop),
      observer_(observer),
      limits_(limits),
      spec_(spec),
      log_(std::make_shared<LogBuffer>(kLogBytes)) {
  info_.set_session(session);
  info_.set_name(spec.name());
  info_.set_state(v1::PENDING);
  info_.set_generation(1);
}

ManagedProcess::~ManagedProcess() {
  for (Output& output : outputs_) CloseOutput(output);
  if (notify_watch_ != 0) loop_.Unwatch(notify_watch_);
  if (pidfd_watch_ != 0) loop_.Unwatch(pidfd_watch_);
  for (auto* timer :
       {&ready_timer_, &kill_timer_, &drain_timer_, &status_timer_}) {
    CancelTimer(*timer);
  }
}

bool ManagedProcess::running() const {
  return state() == v1::STARTED || state() == v1::READY ||
         state() == v1::STOPPING;
}

bool ManagedProcess::ended() const {
  return state() == v1::EXITED || state() == v1::FAILED;
}

bool ManagedProcess::exited_ok() const {
  if (state() != v1::EXITED || stop_asked_ || !exit_status_.has_value() ||
      exit_status_->signal != 0) {
    return false;
  }
  if (spec_.ok_exit().empty()) return exit_status_->code == 0;
  return std::find(spec_.ok_exit().begin(), spec_.ok_exit().end(),
                   exit_status_->code) != spec_.ok_exit().end();
}

absl::Duration ManagedProcess::default_grace() const {
  return spec_.has_stop_grace() ? FromProto(spec_.stop_grace()) : kDefaultGrace;
}

void ManagedProcess::Start(
    std::vector<std::pair<std::string, UniqueFd>> channels) {
  if (absl::Status s = Spawn(std::move(channels)); !s.ok()) {
    Fail(std::string(s.message()));
    return;
  }
  *info_.mutable_started() = ToProto(absl::Now());
  info_.set_pid(process_->pid());
  if (spec_.has_ready_timeout()) {
    ready_timer_ = loop_.RunAfter(FromProto(spec_.ready_timeout()),
                                  [this] { OnReadyTimeout(); });
    SetState(v1::STARTED);
  } else {
    was_ready_ = true;
    SetState(v1::READY);
  }
}

absl::Status ManagedProcess::Spawn(
    std::vector<std::pair<std::string, UniqueFd>> channels) {
  absl::StatusOr<NotifySocket> notify = NotifySocket::Create();
  if (!notify.ok()) return notify.status();
  ipc::process::SpawnOptions options;
  options.argv.push_back(spec_.path());
  options.argv.insert(options.argv.end(), spec_.args().begin(),
                      spec_.args().end());
  for (const auto& [name, value] : spec_.env()) {
    options.env.push_back(absl::StrCat(name, "=", value));
  }
  options.env.push_back(absl::StrCat("NOTIFY_SOCKET=", notify->name()));
  options.env.push_back(absl::StrCat("LISTEN_FDS=", channels.size()));
  options.env.push_back(absl::StrCat(
      "LISTEN_FDNAMES=",
      absl::StrJoin(channels, ":", [](std::string* out, const auto& channel) {
        out->append(channel.first);
      })));
  options.pid_env = "LISTEN_PID";
  options.fds[STDIN_FILENO] = -1;
  for (size_t i = 0; i < channels.size(); ++i) {
    options.fds[kFirstGrantedFd + static_cast<int>(i)] =
        channels[i].second.get();
  }
  UniqueFd write_ends[2];
  UniqueFd read_ends[2];
  for (int i = 0; i < 2; ++i) {
    auto pipe = CreateOutputPipe();
    if (!pipe.ok()) return pipe.status();
    read_ends[i] = std::move(pipe->first);
    write_ends[i] = std::move(pipe->second);
    options.fds[STDOUT_FILENO + i] = write_ends[i].get();
  }
  options.working_directory = spec_.working_directory();
  options.limits = WithLimits(limits_, spec_.limits());
  options.new_session = true;
  // This is the supervisor's only thread, so it ends with the supervisor.
  options.death_signal = SIGKILL;

  absl::StatusOr<ipc::process::Process> process = ipc::process::Spawn(options);
  if (!process.ok()) return process.status();
  process_ = *std::move(process);
  reaped_ = false;
  exit_status_.reset();
  pidfd_watch_ = loop_.Watch(process_->poll_fd(), EPOLLIN,
                             [this](uint32_t) { OnPidfd(); });
  notify_ = *std::move(notify);
  notify_watch_ = loop_.Watch(notify_.fd(), EPOLLIN, [this](uint32_t) {
    ReadNotifications(kNotificationsAtOnce);
  });
  for (int i = 0; i < 2; ++i) {
    Output& output = outputs_[i];
    output.stream =
        i == 0 ? LogBuffer::Stream::kStdout : LogBuffer::Stream::kStderr;
    output.fd = std::move(read_ends[i]);
    output.watch = loop_.Watch(output.fd.get(), EPOLLIN, [this, i](uint32_t) {
      ReadOutput(outputs_[i]);
    });
  }
  return absl::OkStatus();
}

void ManagedProcess::Fail(const std::string& reason) {
  info_.set_error(reason);
  *info_.mutable_ended() = ToProto(absl::Now());
  SetState(v1::FAILED);
}

void ManagedProcess::Restart(const v1::ProcessSpec& spec) {
  spec_ = spec;
  was_ready_ = false;
  stop_asked_ = false;
  v1::ProcessInfo fresh;
  fresh.set_session(info_.session());
  fresh.set_name(info_.name());
  fresh.set_generation(info_.generation() + 1);
  info_ = fresh;
  SetState(v1::PENDING);
}

void ManagedProcess::Stop(absl::Duration grace) {
  if (!running()) return;
  stop_asked_ = true;
  CancelTimer(ready_timer_);
  CancelTimer(kill_timer_);
  kill_timer_ = loop_.RunAfter(grace, [this] {
    kill_timer_.reset();
    SignalGroup(SIGKILL);
  });
  SignalGroup(spec_.stop_signal() != 0 ? spec_.stop_signal() : SIGTERM);
  if (state() != v1::STOPPING) SetState(v1::STOPPING);
}

void ManagedProcess::SetState(v1::ProcessState state) {
  info_.set_state(state);
  status_unpublished_ = false;
  observer_.OnChange(*this);
}

// Until the leader is reaped, its id cannot come to mean another group.
void ManagedProcess::SignalGroup(int signal) {
  if (process_.has_value() && !reaped_) {
    kill(-process_->pid(), signal);
  }
}

void ManagedProcess::ReadOutput(Output& output) {
  // As much as a pipe holds by default; what is left comes with the next event,
  // after others have had their turn.
  char buffer[64 * 1024];
  const ssize_t n = ipc::RetryOnEintr(
      [&] { return read(output.fd.get(), buffer, sizeof(buffer)); });
  if (n < 0 && errno == EAGAIN) return;
  if (n > 0) {
    log_->Append(output.stream, absl::string_view(buffer, n));
    observer_.OnOutput(*this);
    return;
  }
  CloseOutput(output);
  FinishIfDrained();
}

void ManagedProcess::CloseOutput(Output& output) {
  if (!output.fd.ok()) return;
  loop_.Unwatch(output.watch);
  output.fd.Reset();
}

void ManagedProcess::ReadNotifications(int most) {
  for (int i = 0; i < most; ++i) {
    const std::optional<Notification> n = notify_.Receive();
    if (!n.has_value()) return;
    const bool is_news =
        n->status.has_value() && *n->status != info_.status_text();
    if (is_news) info_.set_status_text(*n->status);
    if (n->ready && state() == v1::STARTED) {
      CancelTimer(ready_timer_);
      was_ready_ = true;
      SetState(v1::READY);
    } else if (n->stopping && running() && state() != v1::STOPPING) {
      SetState(v1::STOPPING);
    } else if (is_news) {
      PublishStatus();
    }
  }
}

// At once, or, soon after the one before, together with what comes meanwhile.
void ManagedProcess::PublishStatus() {
  if (status_timer_.has_value()) {
    status_unpublished_ = true;
    return;
  }
  status_timer_ = loop_.RunAfter(kStatusInterval, [this] {
    status_timer_.reset();
    if (status_unpublished_) PublishStatus();
  });
  status_unpublished_ = false;
  observer_.OnChange(*this);
}

void ManagedProcess::OnReadyTimeout() {
  ready_timer_.reset();
  info_.set_error(
      absl::StrCat("did not say that it is ready (READY=1) within ",
                   absl::FormatDuration(FromProto(spec_.ready_timeout()))));
  Stop(default_grace());
}

void ManagedProcess::OnPidfd() {
  // First the rest of its group, then the zombie: as long as that is there, the
  // group's id is its own.
  SignalGroup(SIGKILL);
  absl::StatusOr<ipc::process::ExitStatus> status =
      process_->Join(absl::ZeroDuration());
  if (absl::IsDeadlineExceeded(status.status())) return;
  if (!status.ok()) info_.set_error(std::string(status.status().message()));
  loop_.Unwatch(pidfd_watch_);
  pidfd_watch_ = 0;
  reaped_ = true;
  if (status.ok()) exit_status_ = *status;
  CancelTimer(ready_timer_);
  CancelTimer(kill_timer_);
  // What it said before it ended.
  ReadNotifications(kLastNotifications);
  observer_.OnReaped(*this);
  drain_timer_ = loop_.RunAfter(kDrainLimit, [this] {
    drain_timer_.reset();
    for (Output& output : outputs_) CloseOutput(output);
    FinishIfDrained();
  });
  FinishIfDrained();
}

void ManagedProcess::FinishIfDrained() {
  if (!reaped_ || outputs_[0].fd.ok() || outputs_[1].fd.ok()) return;
  CancelTimer(drain_timer_);
  // Else one that was set while draining would kill the next generation.
  CancelTimer(kill_timer_);
  loop_.Unwatch(notify_watch_);
  notify_watch_ = 0;
  notify_ = NotifySocket();
  process_.reset();
  if (exit_status_.has_value()) {
    v1::ExitStatus& exit = *info_.mutable_exit();
    if (exit_status_->signal != 0) {
      exit.set_signal(exit_status_->signal);
    } else {
      exit.set_code(exit_status_->code);
    }
  }
  *info_.mutable_ended() = ToProto(absl::Now());
  info_.set_log_end(log_->end());
  SetState(v1::EXITED);
}

void ManagedProcess::CancelTimer(std::optional<EventLoop::TimerId>& timer) {
  if (timer.has_value()) loop_.Cancel(*timer);
  timer.reset();
}

}  // namespace parley::supervisor

#include "services/supervisor/supervisor.h"

#include <errno.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "ipc/base/posix_error.h"
#include "ipc/process/children.h"
#include "services/supervisor/orphans.h"

namespace parley::supervisor {

absl::StatusOr<std::unique_ptr<Supervisor>> Supervisor::Create(
    EventLoop& loop, ManagedProcess::Limits child_limits) {
  if (absl::Status s = ipc::process::BecomeSubreaper(); !s.ok()) return s;
  auto supervisor = std::unique_ptr<Supervisor>(
      new Supervisor(loop, std::move(child_limits)));
  sigset_t child;
  sigemptyset(&child);
  sigaddset(&child, SIGCHLD);
  if (sigprocmask(SIG_BLOCK, &child, nullptr) != 0) {
    return ipc::PosixError(errno, "blocking SIGCHLD");
  }
  supervisor->child_signals_.Reset(
      signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!supervisor->child_signals_.ok()) {
    return ipc::PosixError(errno, "signalfd for SIGCHLD");
  }
  loop.Watch(supervisor->child_signals_.get(), EPOLLIN,
             [s = supervisor.get()](uint32_t) { s->OnChildSignal(); });
  return supervisor;
}

Supervisor::~Supervisor() {
  sessions_.clear();
  ipc::process::KillAllChildren();
}

absl::StatusOr<Session*> Supervisor::Find(const std::string& session) {
  const auto it = sessions_.find(session);
  if (it != sessions_.end()) return it->second.get();
  return absl::NotFoundError(absl::StrCat(
      "there is no session \"", session, "\"",
      sessions_.empty()
          ? std::string(": none is up")
          : absl::StrCat("; there are: ",
                         absl::StrJoin(sessions_, ", ",
                                       [](std::string* out, const auto& s) {
                                         out->append(s.first);
                                       }))));
}

Session& Supervisor::NewSession(const std::string& name) {
  v1::Event event;
  event.mutable_session_up()->set_name(name);
  Publish(std::move(event));
  std::unique_ptr<Session>& session = sessions_[name];
  session = std::make_unique<Session>(
      loop_, static_cast<ManagedProcess::Observer&>(*this), child_limits_, name,
      history_.revision());
  return *session;
}

void Supervisor::Forget(const std::string& session) {
  sessions_.erase(session);
  v1::Event event;
  event.mutable_session_down()->set_name(session);
  Publish(std::move(event));
}

absl::Status Supervisor::Up(const v1::SessionSpec& spec) {
  if (spec.name().empty()) {
    return absl::InvalidArgumentError("a session needs a name");
  }
  if (sessions_.contains(spec.name())) {
    return absl::AlreadyExistsError(absl::StrCat(
        "session \"", spec.name(), "\" is up already: take it down first"));
  }
  if (absl::Status s = NewSession(spec.name()).Up(spec); !s.ok()) {
    Forget(spec.name());
    return s;
  }
  return absl::OkStatus();
}

void Supervisor::Down(const std::string& session,
                      std::function<void(const absl::Status&)> down) {
  absl::StatusOr<Session*> found = Find(session);
  if (!found.ok()) {
    loop_.Post(
        [down = std::move(down), status = found.status()] { down(status); });
    return;
  }
  auto& waiting = downs_[session];
  waiting.push_back(std::move(down));
  if (waiting.size() > 1) return;  // it is on its way down
  (*found)->Stop([this, session] {
    // Not from within the session's own call.
    loop_.Post([this, session] {
      const auto answered = std::move(downs_.extract(session).mapped());
      Forget(session);
      for (const auto& callback : answered) callback(absl::OkStatus());
    });
  });
}

absl::StatusOr<v1::ProcessInfo> Supervisor::StartProcess(
    const std::string& session, const v1::ProcessSpec& spec) {
  if (session.empty()) {
    return absl::InvalidArgumentError("a session needs a name");
  }
  const auto it = sessions_.find(session);
  const bool is_new = it == sessions_.end();
  absl::StatusOr<ManagedProcess*> process =
      (is_new ? NewSession(session) : *it->second).StartProcess(spec);
  if (!process.ok()) {
    if (is_new) Forget(session);
    return process.status();
  }
  return (*process)->info();
}

void Supervisor::StopProcess(
    const std::string& session, const std::string& process,
    const std::function<absl::Duration(const ManagedProcess&)>& grace,
    std::function<void(absl::StatusOr<v1::ProcessInfo>)> stopped) {
  absl::StatusOr<Session*> in = Find(session);
  absl::StatusOr<ManagedProcess*> found =
      in.ok() ? (*in)->Find(process)
              : absl::StatusOr<ManagedProcess*>(in.status());
  absl::Status error = found.status();
  if (error.ok() && (*found)->ended()) {
    error = absl::FailedPreconditionError(absl::StrCat(
        "process ", process, " of session ", session, " is not running: it is ",
        v1::ProcessState_Name((*found)->state())));
  }
  if (!error.ok()) {
    stopped(error);
    return;
  }
  awaited_.push_back({*found, std::move(stopped)});
  if ((*found)->state() == v1::PENDING) {
    (*found)->Fail("was stopped before what it depends on had come");
  } else {
    (*found)->Stop(grace(**found));
  }
}

v1::ListResponse Supervisor::List() const {
  v1::ListResponse list;
  list.set_revision(history_.revision());
  for (const auto& [name, session] : sessions_) {
    v1::SessionInfo& info = *list.add_sessions();
    info.set_name(name);
    info.set_stopping(session->stopping());
    for (const auto& [process_name, process] : session->processes()) {
      *list.add_processes() = process->info();
    }
    for (v1::ChannelInfo& channel : session->channels()) {
      *list.add_channels() = std::move(channel);
    }
  }
  return list;
}

void Supervisor::Shutdown(const std::function<void()>& done) {
  auto left = std::make_shared<size_t>(sessions_.size());
  if (*left == 0) loop_.Post(done);
  std::vector<std::string> names;
  for (const auto& [name, session] : sessions_) names.push_back(name);
  for (const std::string& name : names) {
    Down(name, [left, done](const absl::Status&) {
      if (--*left == 0) done();
    });
  }
}

void Supervisor::OnChange(ManagedProcess& process) {
  v1::Event event;
  *event.mutable_process() = process.info();
  Publish(std::move(event));
  if (!process.ended()) return;
  const auto answered = std::stable_partition(
      awaited_.begin(), awaited_.end(),
      [&](const Awaited& awaited) { return awaited.process != &process; });
  std::vector<Awaited> now(std::make_move_iterator(answered),
                           std::make_move_iterator(awaited_.end()));
  awaited_.erase(answered, awaited_.end());
  for (const Awaited& awaited : now) awaited.stopped(process.info());
}

void Supervisor::OnReaped(ManagedProcess&) { OnChildSignal(); }

void Supervisor::OnOutput(ManagedProcess& process) {
  if (listener_ != nullptr) listener_->OnOutput(process);
}

void Supervisor::OnChildSignal() {
  signalfd_siginfo ignored[8];
  while (read(child_signals_.get(), ignored, sizeof(ignored)) > 0) {
  }
  const auto any_process = [this](auto&& predicate) {
    for (const auto& [name, session] : sessions_) {
      for (const auto& [process_name, process] : session->processes()) {
        if (predicate(*process)) return true;
      }
    }
    return false;
  };
  CleanUpOrphans(
      [&](pid_t pid) {
        return any_process([pid](const ManagedProcess& process) {
          return process.info().pid() == pid && !process.reaped();
        });
      },
      [&](absl::string_view notify_name) {
        return any_process([notify_name](const ManagedProcess& process) {
          return !process.reaped() && process.notify_name() == notify_name;
        });
      });
}

void Supervisor::Publish(v1::Event event) {
  history_.Append(std::move(event));
  if (listener_ != nullptr) listener_->OnEvent();
}

}  // namespace parley::supervisor

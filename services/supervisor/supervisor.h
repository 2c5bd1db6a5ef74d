// Supervisor is the parent of everything that Parley runs: the sessions, the
// history of what happened to them, and the orphans they leave.
//
// It is single-threaded, never blocks, and does not know how it is asked: that
// is server.h.
//
// Thread safety: none; lives on the event loop.
#ifndef SERVICES_SUPERVISOR_SUPERVISOR_H_
#define SERVICES_SUPERVISOR_SUPERVISOR_H_

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ipc/base/unique_fd.h"
#include "services/supervisor/event_loop.h"
#include "services/supervisor/history.h"
#include "services/supervisor/managed_process.h"
#include "services/supervisor/session.h"
#include "services/supervisor/supervisor.pb.h"

namespace parley::supervisor {

class Supervisor : private ManagedProcess::Observer {
 public:
  // Told of news, which are then read from history() and the logs.
  class Listener {
   public:
    virtual ~Listener() = default;
    virtual void OnEvent() = 0;
    virtual void OnOutput(const ManagedProcess& process) = 0;
  };

  // Makes this process the subreaper of its descendants and handles SIGCHLD
  // from now on. `loop` outlives it. `child_limits` are for processes whose
  // spec does not set them; what neither sets is as for this process.
  static absl::StatusOr<std::unique_ptr<Supervisor>> Create(
      EventLoop& loop, ManagedProcess::Limits child_limits = {});
  // Kills and reaps every descendant.
  ~Supervisor() override;

  // The only one; outlives it or is replaced by null.
  void set_listener(Listener* listener) { listener_ = listener; }
  const History& history() const { return history_; }
  const std::map<std::string, std::unique_ptr<Session>>& sessions() const {
    return sessions_;
  }

  // AlreadyExists if a session has this name.
  absl::Status Up(const v1::SessionSpec& spec);
  // Calls `down` when the session is gone, later than this call; NotFound if
  // there is none.
  void Down(const std::string& session,
            std::function<void(const absl::Status&)> down);
  // Makes the session if there is none.
  absl::StatusOr<v1::ProcessInfo> StartProcess(const std::string& session,
                                               const v1::ProcessSpec& spec);
  // Calls `stopped` when the process has ended; FailedPrecondition if it was
  // not running.
  void StopProcess(
      const std::string& session, const std::string& process,
      const std::function<absl::Duration(const ManagedProcess&)>& grace,
      std::function<void(absl::StatusOr<v1::ProcessInfo>)> stopped);
  v1::ListResponse List() const;
  // Takes every session down, then calls `done`.
  void Shutdown(const std::function<void()>& done);

 private:
  struct Awaited {
    const ManagedProcess* process;
    std::function<void(absl::StatusOr<v1::ProcessInfo>)> stopped;
  };

  Supervisor(EventLoop& loop, ManagedProcess::Limits child_limits)
      : loop_(loop),
        child_limits_(std::move(child_limits)),
        history_(kHistory) {}

  static constexpr size_t kHistory = 65536;  // events

  void OnChange(ManagedProcess& process) override;
  void OnReaped(ManagedProcess& process) override;
  void OnOutput(ManagedProcess& process) override;
  void OnChildSignal();
  void Publish(v1::Event event);
  absl::StatusOr<Session*> Find(const std::string& session);
  Session& NewSession(const std::string& name);
  void Forget(const std::string& session);

  EventLoop& loop_;
  const ManagedProcess::Limits child_limits_;
  History history_;
  Listener* listener_ = nullptr;
  ipc::UniqueFd child_signals_;  // a signalfd
  std::map<std::string, std::unique_ptr<Session>> sessions_;
  std::vector<Awaited> awaited_;
  // Who waits for a session to be gone.
  std::map<std::string, std::vector<std::function<void(const absl::Status&)>>>
      downs_;
};

}  // namespace parley::supervisor

#endif  // SERVICES_SUPERVISOR_SUPERVISOR_H_

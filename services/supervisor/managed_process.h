// ManagedProcess is one process of a session through its life:
//
//   PENDING -> STARTED -> READY -> STOPPING -> EXITED
//      |          '---------+----------^         |
//      '-> FAILED                PENDING <-------' (Restart)
//
// It becomes EXITED only once it is reaped, the rest of its process group is
// killed, and its output is read to the end, so that whoever sees EXITED has
// all there is to know.
//
// Thread safety: none; lives on the event loop.
#ifndef SERVICES_SUPERVISOR_MANAGED_PROCESS_H_
#define SERVICES_SUPERVISOR_MANAGED_PROCESS_H_

#include <sys/resource.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "ipc/base/unique_fd.h"
#include "ipc/process/process.h"
#include "services/supervisor/event_loop.h"
#include "services/supervisor/log_buffer.h"
#include "services/supervisor/notify_socket.h"
#include "services/supervisor/supervisor.pb.h"

namespace parley::supervisor {

class ManagedProcess {
 public:
  class Observer {
   public:
    virtual ~Observer() = default;
    // info() has changed.
    virtual void OnChange(ManagedProcess& process) = 0;
    // The process has ended, but what descends from it may still run, and hold
    // its output open.
    virtual void OnReaped(ManagedProcess& process) = 0;
    // log() has grown.
    virtual void OnOutput(ManagedProcess& process) = 0;
  };

  // As in ipc::process::SpawnOptions.
  using Limits = std::vector<std::pair<int, rlimit>>;

  // PENDING. `loop`, `observer` and `limits` outlive it. `limits` are those
  // that its spec does not set.
  ManagedProcess(EventLoop& loop, Observer& observer, const Limits& limits,
                 const std::string& session, const v1::ProcessSpec& spec);
  ~ManagedProcess();
  ManagedProcess(const ManagedProcess&) = delete;
  ManagedProcess& operator=(const ManagedProcess&) = delete;

  const std::string& name() const { return spec_.name(); }
  const v1::ProcessSpec& spec() const { return spec_; }
  const v1::ProcessInfo& info() const { return info_; }
  const std::shared_ptr<LogBuffer>& log() const { return log_; }
  v1::ProcessState state() const { return info_.state(); }

  bool running() const;                          // STARTED, READY or STOPPING
  bool ended() const;                            // EXITED or FAILED
  bool was_ready() const { return was_ready_; }  // since its last start
  bool exited_ok()
      const;  // EXITED, by itself, with one of the codes in ok_exit

  // Whether the kernel no longer knows its id: before it is started, and from
  // shortly before EXITED on.
  bool reaped() const { return reaped_; }
  // What NOTIFY_SOCKET tells it and its descendants; empty if not running.
  const std::string& notify_name() const { return notify_.name(); }

  // Starts it with the channels it was granted. If that fails it is FAILED.
  // Requires PENDING.
  void Start(std::vector<std::pair<std::string, ipc::UniqueFd>> channels);

  // It will not be started: FAILED. Requires PENDING.
  void Fail(const std::string& reason);

  // Back to PENDING, as a new generation. Requires ended().
  void Restart(const v1::ProcessSpec& spec);

  // Asks it to stop, and kills it after `grace`; again, with a new grace. No
  // effect unless running.
  void Stop(absl::Duration grace);
  // Whether it was asked since its last start. It may be STOPPING all by
  // itself.
  bool stop_asked() const { return stop_asked_; }
  absl::Duration default_grace() const;

 private:
  struct Output {
    LogBuffer::Stream stream;
    ipc::UniqueFd fd;
    EventLoop::WatchId watch = 0;
  };

  absl::Status Spawn(
      std::vector<std::pair<std::string, ipc::UniqueFd>> channels);
  void SetState(v1::ProcessState state);
  void SignalGroup(int signal);
  void ReadOutput(Output& output);
  void CloseOutput(Output& output);
  void ReadNotifications(int most);
  void PublishStatus();
  void OnReadyTimeout();
  void OnPidfd();
  void FinishIfDrained();
  void CancelTimer(std::optional<EventLoop::TimerId>& timer);

  EventLoop& loop_;
  Observer& observer_;
  const Limits& limits_;
  v1::ProcessSpec spec_;
  v1::ProcessInfo info_;
  std::shared_ptr<LogBuffer> log_;
  bool was_ready_ = false;
  bool stop_asked_ = false;

  std::optional<ipc::process::Process> process_;
  EventLoop::WatchId pidfd_watch_ = 0;
  bool reaped_ = true;
  std::optional<ipc::process::ExitStatus> exit_status_;  // if it is known
  Output outputs_[2];
  NotifySocket notify_;
  EventLoop::WatchId notify_watch_ = 0;
  std::optional<EventLoop::TimerId> ready_timer_;
  std::optional<EventLoop::TimerId> kill_timer_;
  std::optional<EventLoop::TimerId> drain_timer_;
  // Set while the last change that was only of the status text is recent.
  std::optional<EventLoop::TimerId> status_timer_;
  bool status_unpublished_ = false;
};

}  // namespace parley::supervisor

#endif  // SERVICES_SUPERVISOR_MANAGED_PROCESS_H_

// Session is a group of processes and the channels between them: it starts each
// process when what that depends on has come, and stops them the other way
// round.
//
// Thread safety: none; lives on the event loop.
#ifndef SERVICES_SUPERVISOR_SESSION_H_
#define SERVICES_SUPERVISOR_SESSION_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/supervisor/channel.h"
#include "services/supervisor/event_loop.h"
#include "services/supervisor/managed_process.h"
#include "services/supervisor/supervisor.pb.h"

namespace parley::supervisor {

class Session : private ManagedProcess::Observer {
 public:
  // `loop`, `observer` and `limits` outlive it.
  Session(EventLoop& loop, ManagedProcess::Observer& observer,
          const ManagedProcess::Limits& limits, const std::string& name,
          uint64_t up_revision);

  const std::string& name() const { return name_; }
  // Of the event that it is up. No other session has the same, not even one
  // that has the same name later.
  uint64_t up_revision() const { return up_revision_; }
  bool stopping() const { return stopping_; }
  const std::map<std::string, std::unique_ptr<ManagedProcess>>& processes()
      const {
    return processes_;
  }
  std::vector<v1::ChannelInfo> channels() const;

  // Creates the channels and the processes, and starts those that depend on
  // nothing. If that fails, nothing was started. InvalidArgument if processes
  // depend on each other in a circle, so that none of them could ever start.
  absl::Status Up(const v1::SessionSpec& spec);

  // Adds a process, or starts an ended one again, as soon as what it depends on
  // has come. AlreadyExists if it runs; InvalidArgument as of Up.
  absl::StatusOr<ManagedProcess*> StartProcess(const v1::ProcessSpec& spec);

  // NotFound names the ones there are.
  absl::StatusOr<ManagedProcess*> Find(const std::string& process);

  // Stops everything, dependents first, and starts nothing any more. Calls
  // `stopped` when all have ended, later than this call.
  void Stop(std::function<void()> stopped);

 private:
  void OnChange(ManagedProcess& process) override;
  void OnReaped(ManagedProcess& process) override;
  void OnOutput(ManagedProcess& process) override;

  absl::Status Check(const v1::ProcessSpec& spec) const;
  void Advance();
  void StartWhatCanBe();
  void StopWhatCanBe();
  std::unique_ptr<ManagedProcess> NewProcess(const v1::ProcessSpec& spec);
  void Start(ManagedProcess& process);
  void ReleaseChannelEnds();
  bool IsNeeded(const ManagedProcess& needed) const;

  EventLoop& loop_;
  ManagedProcess::Observer& observer_;
  const ManagedProcess::Limits& limits_;
  const std::string name_;
  const uint64_t up_revision_;
  std::map<std::string, Channel> channels_;
  std::map<std::string, std::unique_ptr<ManagedProcess>> processes_;
  std::shared_ptr<bool> advance_posted_ = std::make_shared<bool>(false);
  bool stopping_ = false;
  std::vector<std::function<void()>> stopped_;
};

}  // namespace parley::supervisor

#endif  // SERVICES_SUPERVISOR_SESSION_H_

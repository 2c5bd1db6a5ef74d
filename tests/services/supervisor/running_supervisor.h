// Runs the real supervisor for a test, and speaks to it.
//
// Example:
//
//   RunningSupervisor supervisor;
//   v1::SessionSpec session = Session("s");
//   *session.add_processes() = Process("p", Testcase("prints"), {"hello"});
//   ASSERT_TRUE(supervisor.Up(session).ok());
//   v1::ProcessInfo end = supervisor.AwaitState("s", "p", v1::EXITED);
//
// Everything waits for events, and gives up, with a failure, after kPatience.
#ifndef TESTS_SERVICES_SUPERVISOR_RUNNING_SUPERVISOR_H_
#define TESTS_SERVICES_SUPERVISOR_RUNNING_SUPERVISOR_H_

#include <sys/resource.h>
#include <sys/types.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "ipc/process/process.h"
#include "services/supervisor/client.h"
#include "services/supervisor/supervisor.pb.h"

namespace parley::supervisor {

inline constexpr absl::Duration kPatience = absl::Seconds(50);

// A file below the workspace's runfiles.
std::string Runfile(absl::string_view path);
// The path of a program of //tests/testcases.
std::string Testcase(absl::string_view name);

v1::SessionSpec Session(const std::string& name);
v1::ChannelSpec Pipe(const std::string& name, bool duplex = false);
v1::ProcessSpec Process(const std::string& name, const std::string& path,
                        const std::vector<std::string>& args = {});
// Of a channel, by its own name.
void AddGrant(v1::ProcessSpec& process, const std::string& channel,
              v1::Role role);
void AddDependency(v1::ProcessSpec& process, const std::string& on,
                   v1::DependencyCondition condition);

class RunningSupervisor {
 public:
  // With these limits of open files, both soft and hard; 0: the test's own.
  explicit RunningSupervisor(rlim_t soft_files = 0, rlim_t hard_files = 0);
  // Ends it.
  ~RunningSupervisor();

  pid_t pid() const { return process_->pid(); }

  // Another client than the one that the functions below use.
  std::unique_ptr<Client> Connect() const;
  // A connection that is still to be made a client.
  ipc::UniqueFd ConnectFd() const;

  absl::Status Up(const v1::SessionSpec& session);
  absl::Status Down(const std::string& session);
  absl::StatusOr<v1::ProcessInfo> StartProcess(const std::string& session,
                                               const v1::ProcessSpec& process);
  absl::StatusOr<v1::ProcessInfo> StopProcess(const std::string& session,
                                              const std::string& process,
                                              absl::Duration grace);
  v1::ListResponse List();

  // What has happened, up to the first push that `is_awaited`: events since the
  // supervisor began, logs from their beginning. Goes on after the last call,
  // so await what comes in no certain order by one call.
  v1::ServerMessage Await(
      const std::function<bool(const v1::ServerMessage&)>& is_awaited);
  v1::ProcessInfo AwaitState(const std::string& session,
                             const std::string& process,
                             v1::ProcessState state);
  // Until it has printed `text`, on either stream, at the end of all that it
  // has printed.
  void AwaitOutput(const std::string& session, const std::string& process,
                   absl::string_view text);
  // All that Await has seen of its output.
  const std::string& OutputOf(const std::string& session,
                              const std::string& process) {
    return outputs_[{session, process}];
  }
  // All events that Await has seen.
  const std::vector<v1::Event>& events() const { return events_; }

 private:
  ipc::UniqueFd ConnectTo(const std::string& abstract_name) const;

  std::string abstract_name_;  // of the listening socket
  std::unique_ptr<ipc::process::Process> process_;
  std::unique_ptr<Client> client_;  // ends the supervisor when it closes
  std::unique_ptr<Client> watcher_;
  std::map<std::pair<std::string, std::string>, std::string> outputs_;
  std::vector<v1::Event> events_;
};

// Requests.
absl::Status Up(Client& client, const v1::SessionSpec& session,
                bool bound_to_connection = false);
absl::Status Down(Client& client, const std::string& session);
absl::Status Subscribe(Client& client, const v1::SubscribeRequest& request);

}  // namespace parley::supervisor

#endif  // TESTS_SERVICES_SUPERVISOR_RUNNING_SUPERVISOR_H_

// The commands that ask a server: ps, logs, watch, start, stop, up, down.
//
// Each prints what comes back, as text or with `json` as protobuf's JSON, one
// message a line, and exits 0, or 1 with the error.
#ifndef SERVICES_CONTROL_CLIENT_COMMANDS_H_
#define SERVICES_CONTROL_CLIENT_COMMANDS_H_

#include <string>
#include <vector>

namespace parley::control {

struct ClientOptions {
  std::string socket = {};  // of the server
  bool json = false;
};

// Sessions and processes may be named in short, as "S" and "S/P", or in full,
// as "sessions/S" and "sessions/S/processes/P".

// A line for each process of `session`, or of all if it is empty.
int PsCommand(const ClientOptions& options, const std::string& session);
// What `target`, a process, a session or empty for all, has printed, and with
// `follow` also what it prints later.
int LogsCommand(const ClientOptions& options, const std::string& target,
                bool follow);
// Each change, until interrupted.
int WatchCommand(const ClientOptions& options, const std::string& session);
// Starts `binary`, a label or a path, as `process`.
int StartCommand(const ClientOptions& options, const std::string& process,
                 const std::string& binary,
                 const std::vector<std::string>& args);
int StopCommand(const ClientOptions& options, const std::string& process);
// Starts the session of a scenario file, whose expectations are ignored.
int UpCommand(const ClientOptions& options, const std::string& file);
int DownCommand(const ClientOptions& options, const std::string& session);

}  // namespace parley::control

#endif  // SERVICES_CONTROL_CLIENT_COMMANDS_H_

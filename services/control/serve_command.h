// `parley serve`: a server, and behind it a supervisor that outlives it.
//
// It ends with 0 when SIGINT or SIGTERM asks it to, having stopped everything
// that ran. If it is killed, all goes on without it, and the next one takes
// over. If the supervisor dies, so has all that ran: it ends with 3.
#ifndef SERVICES_CONTROL_SERVE_COMMAND_H_
#define SERVICES_CONTROL_SERVE_COMMAND_H_

#include <string>

namespace parley::control {

struct ServeCommandOptions {
  std::string directory = {};   // empty: DefaultRuntimeDirectory()
  std::string supervisor = {};  // binary; empty: //services/supervisor
  std::string workspace = {};
  std::string argv0 = {};
};

// Prints "serving at SOCKET" once it can be called.
int ServeCommand(const ServeCommandOptions& options);

}  // namespace parley::control

#endif  // SERVICES_CONTROL_SERVE_COMMAND_H_

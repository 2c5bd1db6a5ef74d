// parley: starts a group of processes, gives each exactly the channels it may
// use, and judges what comes of it.
//
// Exit codes: 0 done or passed, 1 an expectation failed or a request was
// refused, 2 inconclusive, 3 infrastructure, 64 usage or a bad scenario file,
// 124 time limit, 128 + N ended by signal N.
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "services/control/client_commands.h"
#include "services/control/exit_codes.h"
#include "services/control/plan_command.h"
#include "services/control/run_command.h"
#include "services/control/runtime_directory.h"
#include "services/control/serve_command.h"

namespace parley::control {
namespace {

// Options that more than one command has.
struct Options {
  RunCommandOptions run;
  PlanCommandOptions plan;
  ServeCommandOptions serve;
  std::string workspace = "parley";
  std::string supervisor;
  std::string directory;
  std::string target;
  std::string binary;
  std::string file;
  std::vector<std::string> args;
  bool json = false;
  bool follow = false;
};

ClientOptions Server(const Options& options) {
  const std::string directory =
      options.directory.empty() ? DefaultRuntimeDirectory() : options.directory;
  return {.socket = RuntimeDirectory{directory}.control_socket(),
          .json = options.json};
}

void AddRun(CLI::App& app, Options& o, int& exit_code) {
  CLI::App* run = app.add_subcommand("run", "Run scenarios to their verdicts");
  run->add_option("FILE", o.run.files, "Scenario files (*.textproto)")
      ->required();
  run->add_option("--connect", o.run.connect,
                  "Run over the server at this socket");
  run->add_option("--junit", o.run.junit, "Write a JUnit XML report here");
  run->add_option("--log_dir", o.run.log_dir,
                  "Write each process' output and the history below here");
  run->add_option("--verdict", o.run.verdict,
                  "What is to come of it: passed, failed, inconclusive, "
                  "time_limit, or invalid");
  run->add_option("--seed", o.run.seed, "Instead of the scenarios' own");
  run->add_option("--supervisor", o.supervisor,
                  "The supervisor's binary, a label or a path");
  run->add_option("--workspace", o.workspace, "Bazel's name of the workspace");
  run->add_flag("--json", o.json, "Print each event as a line of JSON");
  run->add_flag("-v,--verbose", o.run.verbose, "Print each process' states");
  run->callback([&] {
    o.run.supervisor = o.supervisor;
    o.run.workspace = o.workspace;
    o.run.json = o.json;
    exit_code = RunCommand(o.run);
  });
}

void AddPlan(CLI::App& app, Options& o, int& exit_code) {
  CLI::App* plan =
      app.add_subcommand("plan", "Check a scenario and show its start order");
  plan->add_option("FILE", o.plan.file, "Scenario file")->required();
  plan->add_option("--workspace", o.workspace, "Bazel's name of the workspace");
  plan->add_flag("--json", o.json, "Print a PlanResponse as JSON");
  plan->callback([&] {
    o.plan.workspace = o.workspace;
    o.plan.json = o.json;
    exit_code = PlanCommand(o.plan);
  });
}

void AddServe(CLI::App& app, Options& o, int& exit_code) {
  CLI::App* serve = app.add_subcommand(
      "serve", "Serve the API at a unix socket, with a supervisor behind it");
  serve->add_option("--directory", o.directory,
                    "For sockets; by default $XDG_RUNTIME_DIR/parley or "
                    "/tmp/parley-UID");
  serve->add_option("--supervisor", o.supervisor,
                    "The supervisor's binary, a label or a path");
  serve->add_option("--workspace", o.workspace,
                    "Bazel's name of the workspace");
  serve->callback([&] {
    o.serve.directory = o.directory;
    o.serve.supervisor = o.supervisor;
    o.serve.workspace = o.workspace;
    exit_code = ServeCommand(o.serve);
  });
}

CLI::App* AddClient(CLI::App& app, Options& o, const std::string& name,
                    const std::string& description) {
  CLI::App* command = app.add_subcommand(name, description);
  command->add_option("--directory", o.directory, "That of `parley serve`");
  command->add_flag("--json", o.json, "Print messages as lines of JSON");
  return command;
}

void AddClients(CLI::App& app, Options& o, int& exit_code) {
  CLI::App* ps = AddClient(app, o, "ps", "List processes");
  ps->add_option("SESSION", o.target, "By default all");
  ps->callback([&] { exit_code = PsCommand(Server(o), o.target); });

  CLI::App* logs = AddClient(app, o, "logs", "Print what processes printed");
  logs->add_option("TARGET", o.target, "SESSION or SESSION/PROCESS");
  logs->add_flag("-f,--follow", o.follow, "Also what comes later");
  logs->callback(
      [&] { exit_code = LogsCommand(Server(o), o.target, o.follow); });

  CLI::App* watch = AddClient(app, o, "watch", "Print each change of state");
  watch->add_option("SESSION", o.target, "By default all");
  watch->callback([&] { exit_code = WatchCommand(Server(o), o.target); });

  CLI::App* start = AddClient(app, o, "start", "Start a process");
  start->add_option("PROCESS", o.target, "SESSION/PROCESS")->required();
  start->add_option("BINARY", o.binary, "A label or a path")->required();
  start->add_option("ARGS", o.args, "Its arguments, after --");
  start->callback(
      [&] { exit_code = StartCommand(Server(o), o.target, o.binary, o.args); });

  CLI::App* stop = AddClient(app, o, "stop", "Stop a process");
  stop->add_option("PROCESS", o.target, "SESSION/PROCESS")->required();
  stop->callback([&] { exit_code = StopCommand(Server(o), o.target); });

  CLI::App* up = AddClient(app, o, "up", "Start a scenario's session");
  up->add_option("FILE", o.file, "Scenario file")->required();
  up->callback([&] { exit_code = UpCommand(Server(o), o.file); });

  CLI::App* down = AddClient(app, o, "down", "Stop a session");
  down->add_option("SESSION", o.target, "Its name")->required();
  down->callback([&] { exit_code = DownCommand(Server(o), o.target); });
}

int Main(int argc, char** argv) {
  CLI::App app("Runs groups of processes and judges what comes of them.",
               "parley");
  app.require_subcommand(1);
  Options options;
  options.run.argv0 = options.plan.argv0 = options.serve.argv0 = argv[0];
  int exit_code = kExitOk;
  AddRun(app, options, exit_code);
  AddPlan(app, options, exit_code);
  AddServe(app, options, exit_code);
  AddClients(app, options, exit_code);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitOk : kExitUsage;
  }
  return exit_code;
}

}  // namespace
}  // namespace parley::control

int main(int argc, char** argv) { return parley::control::Main(argc, argv); }

#include "tests/ipc/shm/python_peer.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <utility>

#include "absl/status/statusor.h"
#include "ipc/base/posix_error.h"
#include "ipc/process/exit_status.h"
#include "ipc/process/spawn.h"

namespace ipc::shm {
namespace {

void CheckThat(bool holds, const char* what) {
  if (holds) return;
  perror(what);
  abort();
}

}  // namespace

PythonPeer::PythonPeer(const std::string& role,
                       const std::vector<std::string>& names) {
  int sockets[2];
  CheckThat(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) == 0,
            "socketpair");
  talk_ = UniqueFd(sockets[0]);
  const UniqueFd its_talk(sockets[1]);
  int pipe[2];
  CheckThat(pipe2(pipe, O_CLOEXEC) == 0, "pipe2");
  stderr_ = UniqueFd(pipe[0]);
  const UniqueFd its_stderr(pipe[1]);

  process::SpawnOptions options;
  // Tests run in the root of their runfiles. -I: nothing of the user's.
  options.argv = {"/usr/bin/python3", "-I", "tests/ipc/shm/python_peer.py",
                  role};
  options.argv.insert(options.argv.end(), names.begin(), names.end());
  options.env = {"PATH=/usr/bin:/bin"};
  options.fds = {
      {0, its_talk.get()}, {1, its_talk.get()}, {2, its_stderr.get()}};
  options.death_signal = SIGKILL;
  absl::StatusOr<process::Process> process = process::Spawn(options);
  if (!process.ok()) {
    fprintf(stderr, "%s\n", process.status().ToString().c_str());
    abort();
  }
  process_.emplace(*std::move(process));
}

PythonPeer::~PythonPeer() {
  if (!process_.has_value()) return;
  Kill();
  Wait();
}

std::string PythonPeer::Hear() const {
  std::string line;
  char byte;
  while (RetryOnEintr([&] { return read(talk_.get(), &byte, 1); }) == 1) {
    if (byte == '\n') return line;
    line.push_back(byte);
  }
  return "";
}

void PythonPeer::Tell() const {
  RetryOnEintr([&] { return send(talk_.get(), "\n", 1, MSG_NOSIGNAL); });
}

void PythonPeer::Kill() const { process_->Kill().IgnoreError(); }

int PythonPeer::Wait() {
  // One that still waits to be told is told that nothing will come.
  shutdown(talk_.get(), SHUT_WR);
  char buffer[4096];
  ssize_t n;
  while ((n = RetryOnEintr([&] {
            return read(stderr_.get(), buffer, sizeof(buffer));
          })) > 0) {
    complaint_.append(buffer, static_cast<size_t>(n));
  }
  const absl::StatusOr<process::ExitStatus> status = process_->Join();
  CheckThat(status.ok(), "Join");
  process_.reset();
  return status->exitcode();
}

}  // namespace ipc::shm

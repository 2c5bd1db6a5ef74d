// The article's first program: a message through a pipe. See README.md.
#include <cstdio>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "ipc/pipe/connection.h"
#include "ipc/process/process.h"

using ipc::pipe::Connection;
using ipc::process::Process;

int Sender(Connection& connection) {
  const bool sent = connection.Send("Hello from sender!").ok();
  connection.Close();
  return sent ? 0 : 1;
}

int Receiver(Connection& connection) {
  const absl::StatusOr<std::string> message = connection.Receive();
  if (!message.ok()) return 1;
  printf("Received message: %s\n", message->c_str());
  connection.Close();
  return 0;
}

int main() {
  std::pair<Connection, Connection> ends = Connection::CreatePair().value();

  Process p1 = Process::Start([&] { return Sender(ends.first); }).value();
  Process p2 = Process::Start([&] { return Receiver(ends.second); }).value();

  const bool sent = p1.Join().value().exitcode() == 0;
  const bool received = p2.Join().value().exitcode() == 0;
  return sent && received ? 0 : 1;
}

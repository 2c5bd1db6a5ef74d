// The article's third program: a message through a queue. See README.md.
#include <cstdio>
#include <string>

#include "absl/status/statusor.h"
#include "ipc/mqueue/queue.h"
#include "ipc/process/process.h"

using ipc::mqueue::Queue;
using ipc::process::Process;

int Sender(Queue& queue) {
  return queue.Send("Hello from sender!").ok() ? 0 : 1;
}

int Receiver(Queue& queue) {
  const absl::StatusOr<std::string> message = queue.Receive();
  if (!message.ok()) return 1;
  printf("Received message: %s\n", message->c_str());
  return 0;
}

int main() {
  Queue queue = Queue::CreateAnonymous().value();

  Process p1 = Process::Start([&] { return Sender(queue); }).value();
  Process p2 = Process::Start([&] { return Receiver(queue); }).value();

  const bool sent = p1.Join().value().exitcode() == 0;
  const bool received = p2.Join().value().exitcode() == 0;
  return sent && received ? 0 : 1;
}

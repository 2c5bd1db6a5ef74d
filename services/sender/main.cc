// sender: sends messages over the pipe or queue that it was granted.
//
// Exit status: 0 when all is sent, or when asked to stop; 1 otherwise, with the
// reason on standard error.

#include <stdio.h>

#include <algorithm>
#include <cstdint>
#include <string>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "services/agent/agent.h"
#include "services/agent/message_channel.h"

ABSL_FLAG(std::string, channel, "",
          "name of the granted channel; empty: the only one");
ABSL_FLAG(std::string, message, "Hello from sender!", "what to send");
ABSL_FLAG(uint64_t, count, 1, "how many messages to send");
ABSL_FLAG(uint64_t, size, 0,
          "bytes of each message, to which --message is cut or repeated; 0: as "
          "it is");
ABSL_FLAG(double, rate, 0, "messages a second; 0: as fast as they are taken");
ABSL_FLAG(bool, close, true,
          "close the channel for sending at the end; of a queue that others "
          "send to as well, false");
ABSL_FLAG(bool, summary, true, "print counts on standard error at the end");

namespace parley {
namespace {

std::string MakeMessage(const std::string& text, uint64_t size) {
  if (size == 0 || text.empty()) return text + std::string(size, '\0');
  std::string message;
  message.reserve(size + text.size());
  while (message.size() < size) message += text;
  message.resize(size);
  return message;
}

// Sleeps until `time`, or until the agent is asked to stop.
void SleepUntil(absl::Time time, const agent::Agent& agent) {
  while (!agent.stop_requested() && absl::Now() < time) {
    absl::SleepFor(std::min(time - absl::Now(), agent::kStopCheckInterval));
  }
}

absl::Status Run() {
  absl::StatusOr<agent::Agent> agent = agent::Agent::Adopt();
  if (!agent.ok()) return agent.status();
  auto channel =
      agent::MessageChannel::Adopt(*agent, absl::GetFlag(FLAGS_channel));
  if (!channel.ok()) return channel.status();
  if (absl::Status s = agent->Ready(); !s.ok()) return s;

  const std::string message =
      MakeMessage(absl::GetFlag(FLAGS_message), absl::GetFlag(FLAGS_size));
  const uint64_t count = absl::GetFlag(FLAGS_count);
  const double rate = absl::GetFlag(FLAGS_rate);
  const absl::Time start = absl::Now();
  uint64_t sent = 0;
  absl::Status status;
  for (; sent < count; ++sent) {
    if (rate > 0) SleepUntil(start + absl::Seconds(sent / rate), *agent);
    status = channel->Send(message, *agent);
    if (!status.ok()) break;
  }
  if (absl::GetFlag(FLAGS_summary)) {
    fprintf(stderr, "sent %ju messages, %ju bytes\n", uintmax_t{sent},
            uintmax_t{sent * message.size()});
  }
  if (absl::IsCancelled(status)) status = absl::OkStatus();
  if (!status.ok()) return status;
  if (absl::GetFlag(FLAGS_close)) status = channel->CloseForSend();
  status.Update(agent->Stopping());
  return status;
}

}  // namespace
}  // namespace parley

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage("sends messages over a granted pipe or queue");
  absl::ParseCommandLine(argc, argv);
  const absl::Status status = parley::Run();
  if (status.ok()) return 0;
  fprintf(stderr, "sender: %s\n", status.ToString().c_str());
  return 1;
}

// receiver: prints the messages of the pipe or queue that it was granted.
//
// Exit status: 0 after --count messages, or at the end of the channel if there
// is no --count, or when asked to stop; 1 otherwise, with the reason on
// standard error. An end before --count messages is an error.

#include <stdio.h>

#include <algorithm>
#include <cstdint>
#include <string>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "services/agent/agent.h"
#include "services/agent/message_channel.h"

ABSL_FLAG(std::string, channel, "",
          "name of the granted channel; empty: the only one");
ABSL_FLAG(std::string, message,
          "Received message: ", "what to print before each message");
ABSL_FLAG(uint64_t, count, 0,
          "how many messages to receive; 0: until the channel ends");
ABSL_FLAG(uint64_t, size, 0,
          "bytes that each message must have; 0: any number");
ABSL_FLAG(double, rate, 0,
          "messages a second at most; 0: as fast as they come");
ABSL_FLAG(bool, print, true, "print the messages on standard output");
ABSL_FLAG(bool, summary, true, "print counts on standard error at the end");

namespace parley {
namespace {

absl::Status Run() {
  absl::StatusOr<agent::Agent> agent = agent::Agent::Adopt();
  if (!agent.ok()) return agent.status();
  auto channel =
      agent::MessageChannel::Adopt(*agent, absl::GetFlag(FLAGS_channel));
  if (!channel.ok()) return channel.status();
  if (absl::Status s = agent->Ready(); !s.ok()) return s;

  const std::string prefix = absl::GetFlag(FLAGS_message);
  const uint64_t count = absl::GetFlag(FLAGS_count);
  const uint64_t size = absl::GetFlag(FLAGS_size);
  const double rate = absl::GetFlag(FLAGS_rate);
  const bool print = absl::GetFlag(FLAGS_print);
  const absl::Time start = absl::Now();
  uint64_t received = 0, bytes = 0;
  absl::Status status;
  while (count == 0 || received < count) {
    absl::StatusOr<std::string> message = channel->Receive(*agent);
    if (!message.ok()) {
      status = message.status();
      break;
    }
    if (size != 0 && message->size() != size) {
      status = absl::DataLossError(absl::StrCat("message ", received, " has ",
                                                message->size(),
                                                " bytes instead of ", size));
      break;
    }
    ++received;
    bytes += message->size();
    if (print) {
      printf("%s%s\n", prefix.c_str(), message->c_str());
      fflush(stdout);
    }
    if (rate > 0) {
      const absl::Time next = start + absl::Seconds(received / rate);
      while (!agent->stop_requested() && absl::Now() < next) {
        absl::SleepFor(std::min(next - absl::Now(), agent::kStopCheckInterval));
      }
    }
  }
  if (absl::GetFlag(FLAGS_summary)) {
    fprintf(stderr, "received %ju messages, %ju bytes\n", uintmax_t{received},
            uintmax_t{bytes});
  }
  if (absl::IsCancelled(status)) status = absl::OkStatus();
  if (absl::IsOutOfRange(status)) {
    status = count == 0 ? absl::OkStatus()
                        : absl::DataLossError(
                              absl::StrCat("the channel ended after ", received,
                                           " of ", count, " messages"));
  }
  status.Update(agent->Stopping());
  return status;
}

}  // namespace
}  // namespace parley

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage(
      "prints the messages of a granted pipe or queue");
  absl::ParseCommandLine(argc, argv);
  const absl::Status status = parley::Run();
  if (status.ok()) return 0;
  fprintf(stderr, "receiver: %s\n", status.ToString().c_str());
  return 1;
}

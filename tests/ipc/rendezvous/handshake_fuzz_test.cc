// What a peer may say in a handshake, chosen by a fuzzer: it must not be
// accepted unless it answers our challenge rightly, and every failure be told
// once.
//
// The input: a byte of flags, and then messages, each a byte for its size and
// so many bytes; or instead of a size kAnswer, and a byte to choose a digest:
// the right response to our last challenge, which no fuzzer finds by itself.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "ipc/rendezvous/handshake.h"
#include "tests/ipc/rendezvous/right_response.h"

namespace ipc::rendezvous {
namespace {

constexpr absl::string_view kKey = "a key that the input does not have";
constexpr size_t kAnswer = 255;

void Check(bool holds, const char* what) {
  if (holds) return;
  fprintf(stderr, "does not hold: %s\n", what);
  abort();
}

void Run(const uint8_t* data, size_t size) {
  if (size == 0) return;
  const bool is_client = (data[0] & 1) != 0;
  const bool allow_md5 = (data[0] & 2) != 0;
  Handshake handshake(
      is_client ? Handshake::Role::kClient : Handshake::Role::kListener, kKey,
      allow_md5);
  Handshake::Step step = handshake.Start();
  Check(step.status.ok(), "the start cannot fail");
  ++data;
  --size;
  std::string challenge;
  bool is_proved = false;
  while (size > 0 && step.status.ok() && !handshake.done()) {
    // What it waits for is a response if it has just asked.
    bool has_asked = false;
    for (const std::string& message : step.send) {
      Check(message.size() <= Handshake::kMaxMessageBytes,
            "no message is too large");
      if (!absl::StartsWith(message, kChallengePrefix)) continue;
      challenge = message;
      has_asked = true;
    }
    const size_t want = data[0];
    ++data;
    --size;
    if (want == kAnswer && size > 0 && !challenge.empty()) {
      const RightResponse response =
          MakeRightResponse(kKey, challenge, data[0]);
      ++data;
      --size;
      step = handshake.Take(response.message);
      if (has_asked && (allow_md5 || !response.is_md5)) {
        Check(step.status.ok(), "the right response is accepted");
        is_proved = true;
      }
    } else {
      const size_t n = want < size ? want : size;
      step = handshake.Take(
          absl::string_view(reinterpret_cast<const char*>(data), n));
      data += n;
      size -= n;
    }
    Check(step.status.ok() || absl::IsUnauthenticated(step.status),
          "a failure is Unauthenticated");
    Check(!handshake.done() || is_proved, "nobody gets in without the key");
    Check(!handshake.done() || step.status.ok(), "who gets in has not failed");
  }
}

}  // namespace
}  // namespace ipc::rendezvous

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ipc::rendezvous::Run(data, size);
  return 0;
}

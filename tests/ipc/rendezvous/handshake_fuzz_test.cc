// What a peer may say in a handshake, chosen by a fuzzer that does not have the
// key: it must never be accepted, and every failure be told once.
//
// The input: a byte of flags, and then messages, each a byte for its size and
// so many bytes.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "ipc/rendezvous/handshake.h"

namespace ipc::rendezvous {
namespace {

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
      is_client ? Handshake::Role::kClient : Handshake::Role::kListener,
      "a key that the input does not have", allow_md5);
  Handshake::Step step = handshake.Start();
  Check(step.status.ok(), "the start cannot fail");
  ++data;
  --size;
  while (size > 0 && step.status.ok()) {
    const size_t want = data[0];
    ++data;
    --size;
    const size_t n = want < size ? want : size;
    step = handshake.Take(
        absl::string_view(reinterpret_cast<const char*>(data), n));
    data += n;
    size -= n;
    Check(step.status.ok() || absl::IsUnauthenticated(step.status),
          "a failure is Unauthenticated");
    for (const std::string& message : step.send) {
      Check(message.size() <= Handshake::kMaxMessageBytes,
            "no message is too large");
    }
    Check(!handshake.done(), "nobody gets in without the key");
  }
}

}  // namespace
}  // namespace ipc::rendezvous

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ipc::rendezvous::Run(data, size);
  return 0;
}

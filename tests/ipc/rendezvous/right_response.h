// What one who has the key answers to a challenge, for fuzzers, which do not
// guess that.
#ifndef TESTS_IPC_RENDEZVOUS_RIGHT_RESPONSE_H_
#define TESTS_IPC_RENDEZVOUS_RIGHT_RESPONSE_H_

#include <string>

#include "absl/strings/string_view.h"

namespace ipc::rendezvous {

inline constexpr absl::string_view kChallengePrefix = "#CHALLENGE#";

struct RightResponse {
  std::string message;
  bool is_md5;
};

// To `message`, which begins with kChallengePrefix, by one of the digests, or
// by MD5 in the way of old: any `choice` will do.
RightResponse MakeRightResponse(absl::string_view key,
                                absl::string_view message, unsigned choice);

}  // namespace ipc::rendezvous

#endif  // TESTS_IPC_RENDEZVOUS_RIGHT_RESPONSE_H_

// The authentication of Python's multiprocessing.connection, without any I/O:
// each side asks the other for what only one can compute who has the key, and
// nobody tells it.
//
//   listener                                client
//     "#CHALLENGE#" challenge          ->
//                                      <-   response
//     "#WELCOME#" or "#FAILURE#"       ->
//                                      <-   "#CHALLENGE#" challenge
//     response                         ->
//                                      <-   "#WELCOME#" or "#FAILURE#"
//
// each line a message of at most kMaxMessageBytes, framed as any other.
//
//   challenge                        response
//   "{sha256}" 40 random bytes       "{sha256}" HMAC    Python 3.12 and later
//   20 random bytes                  HMAC by MD5        before
//   "{sha256}" 40 random bytes       HMAC by MD5        3.12 asks one before
//
// The HMAC is that of the whole challenge, RFC 2104, with the key. Instead of
// sha256 there may be sha384, sha3_256 or sha3_384. We ask in the way of 3.12.
// MD5, which is all that Python up to 3.11 knows, is refused unless allowed.
//
// What it does not do, here as in Python: nothing is encrypted, or bound to
// this connection or to who asks, so what is shown is that somebody has the
// key, and not that the peer has. One who can put himself between the two can
// pass on the messages of both and go on as either. And one without the key at
// whose address two clients call need not even find a listener: what the first
// one asks him he asks the second, and returns the answer. So a client knows by
// the key alone neither who listens nor that he is no stranger. What stands
// against that is the kernel's word about the peer's user (see PeerPolicy), and
// at a path, the folder's mode. Where neither is, by TCP, or with any_user at
// an abstract name, which any user can take before us, take the key for a guard
// against clients that came by mistake, not against other users of this
// machine.
//
// Example:
//
//   Handshake handshake(Handshake::Role::kListener, key, /*allow_md5=*/false);
//   Handshake::Step step = handshake.Start();
//   while (true) {
//     for (const std::string& message : step.send) connection.Send(message);
//     if (!step.status.ok()) return step.status;
//     if (handshake.done()) break;
//     step = handshake.Take(*connection.Receive());
//   }
//
// Thread safety: as a plain value.
#ifndef IPC_RENDEZVOUS_HANDSHAKE_H_
#define IPC_RENDEZVOUS_HANDSHAKE_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace ipc::rendezvous {

class Handshake {
 public:
  enum class Role { kListener, kClient };

  static constexpr size_t kMaxMessageBytes = 256;

  Handshake(Role role, absl::string_view key, bool allow_md5)
      : role_(role), key_(key), allow_md5_(allow_md5) {}

  // What to send now, in this order; also if the status, an Unauthenticated
  // with the reason, is the end of it.
  struct Step {
    std::vector<std::string> send;
    absl::Status status;
  };
  // To be called first, once.
  Step Start();
  // Takes the next message of the peer. REQUIRES: Start was called, not done(),
  // and no step has failed.
  Step Take(absl::string_view message);

  // Whether each side has accepted the other.
  bool done() const { return state_ == State::kDone; }

 private:
  enum class State {
    kNew,
    kAwaitsResponse,
    kAwaitsChallenge,
    kAwaitsVerdict,
    kDone,
    kFailed,
  };

  Step Challenge();
  Step Fail(absl::string_view reason, std::vector<std::string> send = {});
  Step TakeResponse(absl::string_view response);
  Step TakeChallenge(absl::string_view message);
  Step TakeVerdict(absl::string_view verdict);

  Role role_;
  std::string key_;
  bool allow_md5_;
  State state_ = State::kNew;
  std::string challenge_;  // the one we have sent
};

}  // namespace ipc::rendezvous

#endif  // IPC_RENDEZVOUS_HANDSHAKE_H_

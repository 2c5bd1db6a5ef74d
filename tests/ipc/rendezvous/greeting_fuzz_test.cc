// The same over a socket: the bytes that a peer may send to a Listener, or to
// one who connects, in whatever pieces, and when it may close. It never waits,
// is let in only with the key, and then without a byte lost.
//
// The input: a byte of flags, and then what the peer does: a byte for a size
// and so many bytes, to be sent as they are; or instead of a size one of the
// Act.
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "ipc/base/deadline.h"
#include "ipc/base/unique_fd.h"
#include "ipc/pipe/connection.h"
#include "ipc/rendezvous/greeting.h"
#include "ipc/rendezvous/handshake.h"
#include "ipc/rendezvous/peer_policy.h"
#include "tests/ipc/rendezvous/right_response.h"

namespace ipc::rendezvous {
namespace {

constexpr absl::string_view kKey = "a key that the input does not have";

enum Act : uint8_t {
  kFirstAct = 253,
  kClose = 253,    // its direction
  kAdvance = 254,  // let us look
  kAnswer = 255,   // rightly, by a digest that the next byte chooses
};

void Check(bool holds, const char* what) {
  if (holds) return;
  fprintf(stderr, "does not hold: %s\n", what);
  abort();
}

class Peer {
 public:
  explicit Peer(UniqueFd fd) : fd_(std::move(fd)) {}

  void Send(absl::string_view bytes) {
    // What finds no room, or nobody, is lost.
    (void)!send(fd_.get(), bytes.data(), bytes.size(),
                MSG_NOSIGNAL | MSG_DONTWAIT);
  }
  void SendMessage(absl::string_view message) {
    const char header[] = {0, 0, 0, static_cast<char>(message.size())};
    Send(absl::StrCat(absl::string_view(header, sizeof(header)), message));
  }
  void Close() { shutdown(fd_.get(), SHUT_WR); }
  // Our last challenge, empty if there was none yet.
  std::string Challenge() {
    char bytes[1024];
    ssize_t n;
    while ((n = recv(fd_.get(), bytes, sizeof(bytes), MSG_DONTWAIT)) > 0) {
      received_.append(bytes, static_cast<size_t>(n));
    }
    // "{sha256}" and 40 bytes more.
    const size_t at = absl::string_view(received_).rfind(kChallengePrefix);
    return at == absl::string_view::npos
               ? ""
               : received_.substr(at, kChallengePrefix.size() + 48);
  }

 private:
  UniqueFd fd_;
  std::string received_;
};

void Run(const uint8_t* data, size_t size) {
  if (size == 0) return;
  const bool is_client = (data[0] & 1) != 0;
  PeerPolicy policy;
  policy.auth_key = std::string(kKey);
  policy.allow_md5 = (data[0] & 2) != 0;
  policy.any_user = true;
  ++data;
  --size;
  int fds[2];
  Check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0,
        "there are sockets");
  Peer peer{UniqueFd(fds[1])};
  absl::StatusOr<internal::Greeting> greeting = internal::Greeting::Begin(
      UniqueFd(fds[0]), /*is_tcp=*/false,
      is_client ? Handshake::Role::kClient : Handshake::Role::kListener,
      policy);
  Check(greeting.ok(), "the start cannot fail");
  bool has_answered = false;
  while (size > 0 && !greeting->done()) {
    const size_t act = data[0];
    ++data;
    --size;
    if (act == kAdvance) {
      absl::StatusOr<bool> done =
          greeting->Advance(Deadline::After(absl::ZeroDuration()));
      Check(done.ok() || absl::IsUnauthenticated(done.status()) ||
                (is_client && absl::IsUnavailable(done.status())),
            "a failure is one of those");
      if (!done.ok()) return;
      Check(*done == greeting->done(), "it says whether it is over");
    } else if (act == kClose) {
      peer.Close();
    } else if (act == kAnswer) {
      const std::string challenge = peer.Challenge();
      if (size == 0 || challenge.empty()) continue;
      peer.SendMessage(MakeRightResponse(kKey, challenge, data[0]).message);
      has_answered = true;
      ++data;
      --size;
    } else {
      const size_t n = act < size ? act : size;
      peer.Send(absl::string_view(reinterpret_cast<const char*>(data), n));
      data += n;
      size -= n;
    }
  }
  if (!greeting->done()) return;
  Check(has_answered, "nobody gets in without the key");
  absl::StatusOr<pipe::Connection> connection = (*std::move(greeting)).Take({});
  Check(connection.ok(), "there is nothing half done");
}

}  // namespace
}  // namespace ipc::rendezvous

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ipc::rendezvous::Run(data, size);
  return 0;
}

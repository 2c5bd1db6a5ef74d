// Clients of a Listener that do not wait for it, so that a test decides when
// each message comes; and some that do not behave at all.
#ifndef TESTS_IPC_RENDEZVOUS_RAW_CLIENT_H_
#define TESTS_IPC_RENDEZVOUS_RAW_CLIENT_H_

#include <errno.h>
#include <sys/socket.h>

#include <cstring>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "ipc/base/unique_fd.h"
#include "ipc/pipe/connection.h"
#include "ipc/rendezvous/address.h"
#include "ipc/rendezvous/handshake.h"

namespace ipc::rendezvous {

// Connected, and nothing said yet.
inline UniqueFd RawConnect(const Address& address) {
  const auto to = address.ToSocket();
  UniqueFd fd(socket(to->family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
  EXPECT_EQ(connect(fd.get(), to->get(), to->size), 0) << strerror(errno);
  return fd;
}

// One that has the key.
class RawClient {
 public:
  RawClient(const Address& address, absl::string_view key)
      : connection_(*pipe::Connection::FromFd(RawConnect(address))),
        handshake_(Handshake::Role::kClient, key, /*allow_md5=*/false) {
    handshake_.Start();
  }

  // Answers what has come, if anything has: a message at most. False if it is
  // over, well or not.
  bool Step() {
    if (handshake_.done() || !status_.ok()) return false;
    absl::StatusOr<std::string> message =
        connection_.Receive(absl::ZeroDuration());
    if (absl::IsDeadlineExceeded(message.status())) return true;
    status_ = message.status();
    if (!status_.ok()) return false;
    const Handshake::Step step = handshake_.Take(*message);
    status_ = step.status;
    for (const std::string& answer : step.send) {
      status_.Update(connection_.Send(answer, absl::ZeroDuration()));
    }
    return status_.ok() && !handshake_.done();
  }

  bool done() const { return handshake_.done(); }
  const absl::Status& status() const { return status_; }
  pipe::Connection& connection() { return connection_; }

 private:
  pipe::Connection connection_;
  Handshake handshake_;
  absl::Status status_;
};

}  // namespace ipc::rendezvous

#endif  // TESTS_IPC_RENDEZVOUS_RAW_CLIENT_H_

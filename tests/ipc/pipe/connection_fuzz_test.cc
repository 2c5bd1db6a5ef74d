// A peer of a socket that sends what a fuzzer chose: bytes, and descriptors
// with them where none or others are expected, while we receive in all ways.
// Any Status will do; a descriptor left open or inherited by the programs we
// start, more of them than asked for, a message beyond the limit will not.
//
// The input: a byte of which bit 0 says whether to read ahead, and then
// operations, each a byte and what it needs; see Operation.
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ipc/base/unique_fd.h"
#include "ipc/pipe/connection.h"

namespace ipc::pipe {
namespace {

constexpr size_t kLimit = 300;

void Check(bool holds, const char* what) {
  if (holds) return;
  fprintf(stderr, "does not hold: %s\n", what);
  abort();
}

int CountOpen() {
  int open = 0;
  for (int fd = 0; fd < 128; ++fd) open += fcntl(fd, F_GETFD) >= 0 ? 1 : 0;
  return open;
}

class Input {
 public:
  Input(const uint8_t* data, size_t size) : data_(data), size_(size) {}

  bool empty() const { return size_ == 0; }
  size_t Number() { return size_ == 0 ? 0 : *Take(1).data(); }
  absl::Span<const uint8_t> Take(size_t n) {
    n = std::min(n, size_);
    const absl::Span<const uint8_t> taken(data_, n);
    data_ += n;
    size_ -= n;
    return taken;
  }

 private:
  const uint8_t* data_;
  size_t size_;
};

enum class Operation : uint8_t {
  kSend,          // a size, and so many bytes
  kSendWithFds,   // how many descriptors; a size, and so many bytes
  kSendFds,       // how many, in our own way
  kEnd,           // of the peer's direction
  kReceive,       //
  kReceiveInto,   // the size of the buffer
  kReceiveBatch,  //
  kReceiveFds,    // how many at most
  kPoll,
};
constexpr size_t kOperations = 9;
constexpr size_t kMostFds = 12;

// By hand, as no sane peer does.
void SendWithFds(int socket, size_t count, absl::Span<const uint8_t> bytes) {
  iovec part = {.iov_base = const_cast<uint8_t*>(bytes.data()),
                .iov_len = bytes.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(kMostFds * sizeof(int))>
      control = {};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (count > 0) {
    message.msg_control = control.data();
    message.msg_controllen = CMSG_SPACE(count * sizeof(int));
    cmsghdr* const rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(count * sizeof(int));
    const std::vector<int> fds(count, STDERR_FILENO);
    std::memcpy(CMSG_DATA(rights), fds.data(), count * sizeof(int));
  }
  // It may be full, or shut down.
  (void)sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

void CheckFds(const absl::StatusOr<std::vector<UniqueFd>>& fds, size_t max) {
  if (!fds.ok()) return;
  Check(!fds->empty() && fds->size() <= max, "as many as were asked for");
  for (const UniqueFd& fd : *fds) {
    Check((fcntl(fd.get(), F_GETFD) & FD_CLOEXEC) != 0, "close-on-exec");
  }
}

void Step(Input& input, Connection& peer, Connection& ours) {
  switch (static_cast<Operation>(input.Number() % kOperations)) {
    case Operation::kSend:
      SendWithFds(peer.fd(), 0, input.Take(input.Number()));
      return;
    case Operation::kSendWithFds: {
      const size_t count = input.Number() % (kMostFds + 1);
      SendWithFds(peer.fd(), count, input.Take(input.Number()));
      return;
    }
    case Operation::kSendFds: {
      const std::vector<int> fds(input.Number() % (kMostFds + 1),
                                 STDERR_FILENO);
      peer.SendFds(fds, absl::ZeroDuration()).IgnoreError();
      return;
    }
    case Operation::kEnd:
      peer.ShutdownSend().IgnoreError();
      return;
    case Operation::kReceive: {
      const auto message = ours.Receive(absl::ZeroDuration());
      Check(!message.ok() || message->size() <= kLimit, "within the limit");
      return;
    }
    case Operation::kReceiveInto: {
      std::vector<std::byte> buffer(input.Number());
      const auto size =
          ours.ReceiveInto(absl::MakeSpan(buffer), absl::ZeroDuration());
      Check(!size.ok() || *size <= std::min(buffer.size(), kLimit),
            "within the buffer");
      return;
    }
    case Operation::kReceiveBatch: {
      const auto messages = ours.ReceiveBatch(absl::ZeroDuration());
      if (!messages.ok()) return;
      Check(!messages->empty(), "no batch is empty");
      for (const std::string& message : *messages) {
        Check(message.size() <= kLimit, "within the limit");
      }
      return;
    }
    case Operation::kReceiveFds: {
      const size_t max = input.Number() % (kMostFds + 1);
      CheckFds(ours.ReceiveFds(max, absl::ZeroDuration()), max);
      return;
    }
    case Operation::kPoll: {
      const auto ready = ours.Poll();
      Check(!ours.is_ready() || !ready.ok() || *ready,
            "what was read ahead is ready");
      return;
    }
  }
}

void Run(Input input) {
  const int before = CountOpen();
  {
    const bool read_ahead = (input.Number() & 1) != 0;
    auto ends = Connection::CreatePair(
        /*duplex=*/true,
        {.max_message_bytes = kLimit, .read_ahead = read_ahead});
    Check(ends.ok(), "a pair can be made");
    while (!input.empty()) Step(input, ends->first, ends->second);
  }
  Check(CountOpen() == before, "no descriptor is left open");
}

}  // namespace
}  // namespace ipc::pipe

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ipc::pipe::Run(ipc::pipe::Input(data, size));
  return 0;
}

// Where a Listener waits for those who Connect.
//
// Example:
//
//   Address::Unix("/run/user/1000/parley.sock")   // a file, of mode 0600
//   Address::Abstract("parley")                   // a name without a file
//   Address::Tcp("127.0.0.1", 0)                  // any free port
//   Address::Parse("unix:/run/user/1000/parley.sock")
//
// A file can be protected by its mode and its folder, so take it unless there
// is a reason. An abstract name belongs to the network namespace: whoever comes
// first has it, of whatever user; a Listener and Connect look at the peer's
// user, but others can keep the name. TCP, of this machine's loopback only, is
// for peers that have nothing else; it tells nobody's user, so the key alone
// protects it, and that only so far: see handshake.h. In Python these are
// "/run/...", "\0parley" and ("127.0.0.1", 0).
//
// See unix(7), ip(7).
//
// Thread safety: as a plain value.
#ifndef IPC_RENDEZVOUS_ADDRESS_H_
#define IPC_RENDEZVOUS_ADDRESS_H_

#include <sys/socket.h>

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace ipc::rendezvous {

class Address {
 public:
  enum class Kind { kUnix, kAbstract, kTcp };

  // `path`: 1 to kMaxPathBytes bytes, which a Listener checks.
  static Address Unix(absl::string_view path);
  // `name`: at most 107 bytes, any bytes; empty for one that the kernel finds.
  static Address Abstract(absl::string_view name);
  // `host`: "localhost", 127.0.0.0/8 or ::1.
  static Address Tcp(absl::string_view host, uint16_t port);

  // "unix:PATH", "abstract:NAME" or "tcp:HOST:PORT", as ToString gives it.
  // InvalidArgument for anything else.
  static absl::StatusOr<Address> Parse(absl::string_view text);
  std::string ToString() const;

  Kind kind() const { return kind_; }
  bool is_tcp() const { return kind_ == Kind::kTcp; }
  // The path, the name or the host.
  const std::string& name() const { return name_; }
  // 0 unless of TCP.
  uint16_t port() const { return port_; }

  // 108 in sockaddr_un, of which a Listener needs some for itself.
  static constexpr size_t kMaxPathBytes = 103;

  // For the kernel. InvalidArgument if it is too long, or the host is not of
  // this machine's loopback.
  struct Socket {
    sockaddr_storage storage = {};
    socklen_t size = 0;
    const sockaddr* get() const {
      return reinterpret_cast<const sockaddr*>(&storage);
    }
    int family() const { return storage.ss_family; }
  };
  absl::StatusOr<Socket> ToSocket() const;
  // What a socket is bound to.
  static absl::StatusOr<Address> OfSocket(int fd);

  friend bool operator==(const Address&, const Address&) = default;

 private:
  Address(Kind kind, absl::string_view name, uint16_t port)
      : kind_(kind), name_(name), port_(port) {}

  Kind kind_;
  std::string name_;
  uint16_t port_;
};

}  // namespace ipc::rendezvous

#endif  // IPC_RENDEZVOUS_ADDRESS_H_

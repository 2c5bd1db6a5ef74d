// Whom a Listener and Connect take for a peer.
//
// Example:
//
//   PeerPolicy policy;
//   policy.auth_key = "the same on both sides";
//   policy.allowed_uids = {geteuid(), 33};
#ifndef IPC_RENDEZVOUS_PEER_POLICY_H_
#define IPC_RENDEZVOUS_PEER_POLICY_H_

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

namespace ipc::rendezvous {

struct PeerPolicy {
  // What both sides have to know, as Python's `authkey`; see handshake.h for
  // how they show it. Without one, the peer's user is all that is looked at.
  std::optional<std::string> auth_key = std::nullopt;
  // Also by MD5, which is all that Python up to 3.11 knows. Its weakness,
  // collisions, is not known to help against HMAC.
  bool allow_md5 = false;

  // The users that the peer's process may have, by the kernel's word, when it
  // connected or began to listen; empty: our own effective one. Looked at
  // before anything is read. A Listener that is to be reached by other users
  // needs a mode that lets them, too.
  std::vector<uid_t> allowed_uids = {};
  // Takes whatever user. TCP cannot tell, so there it goes without saying if
  // there is an auth_key, and without one it has to be said. The key alone does
  // not tell a client who listens: see handshake.h.
  bool any_user = false;
};

}  // namespace ipc::rendezvous

#endif  // IPC_RENDEZVOUS_PEER_POLICY_H_

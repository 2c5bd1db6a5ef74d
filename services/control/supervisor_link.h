// What the engine needs of a connection to a supervisor, so that tests can be
// one.
#ifndef SERVICES_CONTROL_SUPERVISOR_LINK_H_
#define SERVICES_CONTROL_SUPERVISOR_LINK_H_

#include <utility>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/supervisor/supervisor.pb.h"

namespace parley::control {

// Both as of supervisor::Client, where their contracts stand.
class SupervisorLink {
 public:
  virtual ~SupervisorLink() = default;

  virtual absl::StatusOr<supervisor::v1::Response> Call(
      supervisor::v1::ClientMessage request, absl::Duration timeout) = 0;
  virtual absl::StatusOr<supervisor::v1::ServerMessage> Next(
      absl::Duration timeout) = 0;
};

// Over anything that has Call and Next, which must outlive it.
template <typename Client>
class ClientLink : public SupervisorLink {
 public:
  explicit ClientLink(Client* client) : client_(client) {}

  absl::StatusOr<supervisor::v1::Response> Call(
      supervisor::v1::ClientMessage request, absl::Duration timeout) override {
    return client_->Call(std::move(request), timeout);
  }
  absl::StatusOr<supervisor::v1::ServerMessage> Next(
      absl::Duration timeout) override {
    return client_->Next(timeout);
  }

 private:
  Client* client_;
};

}  // namespace parley::control

#endif  // SERVICES_CONTROL_SUPERVISOR_LINK_H_

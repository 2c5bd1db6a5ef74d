// absl::Status to gRPC's and back: the codes are the same.
#ifndef SERVICES_CONTROL_GRPC_STATUS_H_
#define SERVICES_CONTROL_GRPC_STATUS_H_

#include <grpcpp/support/status.h>

#include <string>

#include "absl/status/status.h"

namespace parley::control {

inline grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()),
                      std::string(status.message()));
}

inline absl::Status FromGrpc(const grpc::Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                      status.error_message());
}

}  // namespace parley::control

#endif  // SERVICES_CONTROL_GRPC_STATUS_H_

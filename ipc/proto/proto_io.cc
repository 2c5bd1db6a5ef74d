#include "ipc/proto/proto_io.h"

#include <climits>
#include <string>

#include "absl/strings/str_cat.h"

namespace ipc::proto {

absl::Status SendProto(pipe::Connection& connection,
                       const google::protobuf::MessageLite& message,
                       absl::Duration timeout) {
  if (!message.IsInitialized()) {
    return absl::FailedPreconditionError(
        absl::StrCat("sending a ", message.GetTypeName(), ": not set are ",
                     message.InitializationErrorString()));
  }
  return connection.Send(message.SerializePartialAsString(), timeout);
}

absl::Status ReceiveProtoInto(pipe::Connection& connection,
                              google::protobuf::MessageLite& message,
                              absl::Duration timeout) {
  const absl::StatusOr<std::string> bytes = connection.Receive(timeout);
  if (!bytes.ok()) return bytes.status();
  // Of more than 2 GiB protobuf takes nothing.
  if (bytes->size() > INT_MAX ||
      !message.ParseFromArray(bytes->data(), static_cast<int>(bytes->size()))) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a message of ", bytes->size(), " bytes is no ", message.GetTypeName(),
        ": have both sides agree on the type"));
  }
  return absl::OkStatus();
}

}  // namespace ipc::proto

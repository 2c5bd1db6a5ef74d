// Protocol buffers as the messages of a Connection. Of all of ipc this alone
// needs protobuf.
//
// Example:
//
//   absl::Status sent = SendProto(connection, request, absl::Seconds(1));
//   absl::StatusOr<Answer> answer = ReceiveProto<Answer>(connection);
//
// A message is what SerializeToString gives, in one frame: neither its type nor
// that it is a protocol buffer goes with it, so both sides have to agree. In
// Python: connection.send_bytes(request.SerializeToString()).
//
// Thread safety and status codes: as Connection's Send and Receive.
#ifndef IPC_PROTO_PROTO_IO_H_
#define IPC_PROTO_PROTO_IO_H_

#include <google/protobuf/message_lite.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ipc/pipe/connection.h"

namespace ipc::proto {

// FailedPrecondition, besides, if a required field is not set: then nothing is
// sent.
absl::Status SendProto(pipe::Connection& connection,
                       const google::protobuf::MessageLite& message,
                       absl::Duration timeout = absl::InfiniteDuration());

// Receives into `message`. InvalidArgument, besides, if what came is no such
// message: it is gone, `message` is unspecified, and the connection goes on.
absl::Status ReceiveProtoInto(
    pipe::Connection& connection, google::protobuf::MessageLite& message,
    absl::Duration timeout = absl::InfiniteDuration());

template <typename Message>
absl::StatusOr<Message> ReceiveProto(
    pipe::Connection& connection,
    absl::Duration timeout = absl::InfiniteDuration()) {
  Message message;
  absl::Status status = ReceiveProtoInto(connection, message, timeout);
  if (!status.ok()) return status;
  return message;
}

}  // namespace ipc::proto

#endif  // IPC_PROTO_PROTO_IO_H_

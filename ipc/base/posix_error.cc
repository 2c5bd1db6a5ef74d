#include "ipc/base/posix_error.h"

#include <string.h>

#include "absl/strings/str_cat.h"

namespace ipc {
namespace {

absl::StatusCode CodeFor(int error) {
  switch (error) {
    case EPIPE:
    case ECONNRESET:
    case ECONNREFUSED:
      return absl::StatusCode::kUnavailable;
    case ETOOMANYREFS:  // of descriptors on their way in unix sockets
      return absl::StatusCode::kResourceExhausted;
    default:
      return absl::ErrnoToStatusCode(error);
  }
}

}  // namespace

absl::Status PosixError(int error, absl::string_view context) {
  // glibc's strerror is thread-safe for known numbers, but only the _r variant
  // promises it; this one is the GNU variant, which returns the text.
  char buffer[128];
  return absl::Status(
      CodeFor(error),
      absl::StrCat(context, ": ", strerror_r(error, buffer, sizeof(buffer))));
}

absl::Status Annotate(const absl::Status& status, absl::string_view context) {
  if (status.ok()) return status;
  return absl::Status(status.code(),
                      absl::StrCat(context, ": ", status.message()));
}

}  // namespace ipc

// Between absl's time types and protobuf's.
#ifndef SERVICES_CONTROL_DURATIONS_H_
#define SERVICES_CONTROL_DURATIONS_H_

#include "absl/time/time.h"
#include "google/protobuf/duration.pb.h"
#include "google/protobuf/timestamp.pb.h"

namespace parley::control {

inline absl::Duration FromProto(const google::protobuf::Duration& duration) {
  return absl::Seconds(duration.seconds()) +
         absl::Nanoseconds(duration.nanos());
}

// Of a finite duration.
inline google::protobuf::Duration ToProto(absl::Duration duration) {
  google::protobuf::Duration result;
  absl::Duration rest;
  result.set_seconds(absl::IDivDuration(duration, absl::Seconds(1), &rest));
  result.set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(rest)));
  return result;
}

inline google::protobuf::Timestamp ToProto(absl::Time time) {
  google::protobuf::Timestamp result;
  const int64_t nanoseconds = absl::ToUnixNanos(time);
  result.set_seconds(nanoseconds / 1'000'000'000);
  result.set_nanos(static_cast<int32_t>(nanoseconds % 1'000'000'000));
  return result;
}

}  // namespace parley::control

#endif  // SERVICES_CONTROL_DURATIONS_H_

// What `parley` exits with, for scripts to tell apart.
#ifndef SERVICES_CONTROL_EXIT_CODES_H_
#define SERVICES_CONTROL_EXIT_CODES_H_

#include "services/control/control.pb.h"

namespace parley::control {

inline constexpr int kExitOk = 0;              // done; passed
inline constexpr int kExitFailed = 1;          // an expectation; a request
inline constexpr int kExitInconclusive = 2;    // what had to be known was not
inline constexpr int kExitInfrastructure = 3;  // Parley's own failure
inline constexpr int kExitUsage = 64;          // arguments, or a scenario file
inline constexpr int kExitTimeLimit = 124;     // as of timeout(1)
// 128 + the signal's number: SIGINT, SIGTERM.

inline int ExitCodeOf(v1::Verdict::Result result) {
  switch (result) {
    case v1::Verdict::PASSED:
      return kExitOk;
    case v1::Verdict::FAILED:
      return kExitFailed;
    case v1::Verdict::INCONCLUSIVE:
      return kExitInconclusive;
    case v1::Verdict::TIME_LIMIT:
      return kExitTimeLimit;
    default:
      return kExitInfrastructure;
  }
}

// The one of two that is worse: a failure of Parley's own makes all else
// doubtful, and a failed expectation says more than one that is not known.
inline int WorseExitCode(int a, int b) {
  for (const int code :
       {kExitInfrastructure, kExitTimeLimit, kExitFailed, kExitInconclusive}) {
    if (a == code || b == code) return code;
  }
  return kExitOk;
}

}  // namespace parley::control

#endif  // SERVICES_CONTROL_EXIT_CODES_H_

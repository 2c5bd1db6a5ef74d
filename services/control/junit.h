// JUnit XML, as CI systems and Bazel read it: a <testsuite> for each scenario
// and in it a <testcase> for each check.
//
// A check that failed has a <failure> with what was expected, what was seen,
// and the command that runs it again; one that is inconclusive is <skipped>. A
// verdict that is not a matter of checks (infrastructure, time limit), or not
// the expected one, is a testcase called "verdict". In a scenario that is there
// to fail, and does, the checks that failed have passed.
#ifndef SERVICES_CONTROL_JUNIT_H_
#define SERVICES_CONTROL_JUNIT_H_

#include <string>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "services/control/report.h"

namespace parley::control {

std::string ToJUnitXml(absl::Span<const Report> reports);

// For attributes and text alike. What XML 1.0 cannot hold, and bytes that are
// not UTF-8, are written as \xNN.
std::string EscapeXml(absl::string_view text);

}  // namespace parley::control

#endif  // SERVICES_CONTROL_JUNIT_H_

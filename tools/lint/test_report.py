"""Tells from Bazel's build event file what became of a `bazel test`.

Usage: test_report.py [--log_lines N] LEG EVENTS

EVENTS is what --build_event_json_file wrote. Prints a line for each failure,
with the leg, the label and the end of the test's log, and as its last line

    LEG: NUMBER passed NUMBER failed

A test counts once, whether it ran or was cached. A target that does not build
or load counts as a failed test. A leg that ran no test, or of which the events
are incomplete, has failed. Exits 1 if anything failed.
"""

import argparse
import collections
import json
import os
import sys
import urllib.parse

# Where Bazel says FLAKY, a test passed in a later attempt.
_PASSED = ("PASSED", "FLAKY")

# Reasons for which Bazel gives up a target whose own fault it is not.
_CONSEQUENCES = ("SKIPPED", "NO_ANALYZE", "NO_BUILD")

Failure = collections.namedtuple("Failure", ["label", "what", "logs"])


class Report:
  """passed: labels; failures: of Failure, in the order of the labels."""

  def __init__(self):
    self.passed = []
    self.failures = []


def _path(uri):
  return urllib.parse.unquote(urllib.parse.urlparse(uri).path)


def read_events(lines):
  """Yields the events of a file, as far as it was written."""
  for line in lines:
    try:
      yield json.loads(line)
    except ValueError:
      return  # the last line of a Bazel that was killed


def summarize(events):
  """Returns the Report of one invocation."""
  status = {}  # label -> of its summary
  logs = collections.defaultdict(list)
  broken = {}  # label -> what is wrong, for what did not build or load
  finished = None
  for event in events:
    ident = event.get("id", {})
    if "testSummary" in ident:
      label = ident["testSummary"]["label"]
      if "testSummary" in event:
        status[label] = event["testSummary"].get("overallStatus", "NO_STATUS")
    elif "testResult" in ident:
      if event.get("testResult", {}).get("status") not in _PASSED:
        for output in event.get("testResult", {}).get("testActionOutput", []):
          if output.get("name") == "test.log" and "uri" in output:
            logs[ident["testResult"]["label"]].append(_path(output["uri"]))
    elif "targetCompleted" in ident:
      label = ident["targetCompleted"]["label"]
      if "aborted" in event:
        _abort(broken, label, event["aborted"])
      elif not event.get("completed", {}).get("success", False):
        broken[label] = "does not build"
    elif "aborted" in event:
      for kind in ("configuredLabel", "unconfiguredLabel"):
        if kind in ident:
          _abort(broken, ident[kind]["label"], event["aborted"])
      for kind in ("pattern", "patternSkipped"):
        if kind in ident:
          _abort(broken, " ".join(ident[kind].get("pattern", [])),
                 event["aborted"])
    elif "buildFinished" in ident:
      finished = event.get("finished", {})

  report = Report()
  for label in sorted(set(status) | set(broken)):
    if status.get(label) in _PASSED:
      report.passed.append(label)
    elif label in broken:
      report.failures.append(Failure(label, broken[label], []))
    else:
      report.failures.append(
          Failure(label, status[label].replace("_", " "), logs[label]))
  if finished is None:
    report.failures.append(Failure("bazel", "was ended before its time", []))
  elif not report.failures:
    code = finished.get("exitCode", {})
    if code.get("code", 0) != 0:
      report.failures.append(
          Failure("bazel", "exited with %s %s" %
                  (code.get("code"), code.get("name", "")), []))
    elif not status:
      report.failures.append(Failure("bazel", "ran no test", []))
  return report


def _abort(broken, label, aborted):
  reason = aborted.get("reason", "UNKNOWN")
  if reason not in _CONSEQUENCES or label not in broken:
    broken[label] = ("%s %s" % (reason.replace("_", " ").lower(),
                                aborted.get("description", ""))).strip()


def _tail(path, count):
  try:
    with open(path, errors="replace") as log:
      return "".join(collections.deque(log, maxlen=count))
  except OSError as error:
    return "cannot read its log: %s\n" % error


def main(argv):
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--log_lines", type=int, default=200)
  parser.add_argument("leg")
  parser.add_argument("events")
  options = parser.parse_args(argv)

  try:
    with open(options.events) as lines:
      report = summarize(read_events(lines))
  except OSError:
    report = summarize([])
  red, plain = ("\033[1;31m", "\033[0m") if sys.stdout.isatty(
  ) or os.environ.get("CLICOLOR_FORCE") else ("", "")
  for failure in report.failures:
    print("%sFAILED in %s: %s %s%s" %
          (red, options.leg, failure.label, failure.what, plain))
    for log in failure.logs:
      print("---- the end of %s" % log)
      sys.stdout.write(_tail(log, options.log_lines))
      print("----")
  print("%s: %d passed %d failed" %
        (options.leg, len(report.passed), len(report.failures)))
  return 1 if report.failures else 0


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))

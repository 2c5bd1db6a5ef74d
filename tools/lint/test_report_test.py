"""Tests of test_report, on events as Bazel 4.2 wrote them (shortened)."""

import contextlib
import io
import json
import os
import tempfile
import unittest

from tools.lint import test_report

STARTED = {"id": {"started": {}}, "started": {"command": "test"}}
SUCCESS = {"id": {"buildFinished": {}},
           "finished": {"overallSuccess": True,
                        "exitCode": {"name": "SUCCESS"}}}
TESTS_FAILED = {"id": {"buildFinished": {}},
                "finished": {"exitCode": {"name": "TESTS_FAILED", "code": 3}}}
BUILD_FAILURE = {"id": {"buildFinished": {}},
                 "finished": {"exitCode": {"name": "BUILD_FAILURE",
                                           "code": 1}}}


def completed(label, success=True):
  return {"id": {"targetCompleted": {"label": label,
                                     "configuration": {"id": "7d4f"}}},
          "completed": {"success": True} if success else {
              "failureDetail": {"message": "worker spawn failed"}}}


def result(label, status, log="/out/test.log", attempt=1):
  return {"id": {"testResult": {"label": label, "run": 1, "shard": 1,
                                "attempt": attempt,
                                "configuration": {"id": "7d4f"}}},
          "testResult": {"status": status,
                         "testActionOutput": [
                             {"name": "test.log", "uri": "file://" + log},
                             {"name": "test.xml", "uri": "file:///out/x"}],
                         "testAttemptDurationMillis": "31"}}


def summary(label, status):
  return {"id": {"testSummary": {"label": label,
                                 "configuration": {"id": "7d4f"}}},
          "testSummary": {"totalRunCount": 1, "overallStatus": status,
                          "runCount": 1}}


def aborted(kind, ident, reason, description=""):
  return {"id": {kind: ident},
          "aborted": {"reason": reason, "description": description}}


class SummarizeTest(unittest.TestCase):

  def failures(self, *events):
    return [(f.label, f.what) for f in test_report.summarize(events).failures]

  def test_passed_and_cached(self):
    cached = result("//a:b_test", "PASSED")
    cached["testResult"]["cachedLocally"] = True
    report = test_report.summarize([
        STARTED, completed("//a:lib"), completed("//a:a_test"),
        result("//a:a_test", "PASSED"), summary("//a:a_test", "PASSED"),
        completed("//a:b_test"), cached, summary("//a:b_test", "PASSED"),
        SUCCESS])
    self.assertEqual(report.passed, ["//a:a_test", "//a:b_test"])
    self.assertEqual(report.failures, [])

  def test_failed_has_its_logs(self):
    report = test_report.summarize([
        completed("//a:a_test"),
        result("//a:a_test", "FAILED", "/out/shard%201/test.log"),
        summary("//a:a_test", "FAILED"), TESTS_FAILED])
    self.assertEqual(report.passed, [])
    self.assertEqual(report.failures, [
        test_report.Failure("//a:a_test", "FAILED", ["/out/shard 1/test.log"])])

  def test_only_failed_shards_show_their_log(self):
    report = test_report.summarize([
        completed("//a:a_test"), result("//a:a_test", "PASSED", "/out/1"),
        result("//a:a_test", "TIMEOUT", "/out/2"),
        summary("//a:a_test", "TIMEOUT"), TESTS_FAILED])
    self.assertEqual(report.failures, [
        test_report.Failure("//a:a_test", "TIMEOUT", ["/out/2"])])

  def test_flaky_passed(self):
    report = test_report.summarize([
        result("//a:a_test", "FAILED"),
        result("//a:a_test", "PASSED", attempt=2),
        summary("//a:a_test", "FLAKY"), SUCCESS])
    self.assertEqual(report.passed, ["//a:a_test"])

  def test_what_does_not_build_has_failed(self):
    self.assertEqual(
        self.failures(
            completed("//a:lib", success=False),
            completed("//a:a_test", success=False),
            summary("//a:a_test", "NO_STATUS"),
            completed("//a:b_test"), result("//a:b_test", "PASSED"),
            summary("//a:b_test", "PASSED"), BUILD_FAILURE),
        [("//a:a_test", "does not build"), ("//a:lib", "does not build")])

  def test_what_cannot_be_analyzed_has_failed(self):
    self.assertEqual(
        self.failures(
            aborted("configuredLabel", {"label": "//a:nothere"},
                    "LOADING_FAILURE", "no such target"),
            aborted("targetCompleted", {"label": "//a:a_test"},
                    "ANALYSIS_FAILURE"), BUILD_FAILURE),
        [("//a:a_test", "analysis failure"),
         ("//a:nothere", "loading failure no such target")])

  def test_what_cannot_be_loaded_has_failed(self):
    self.assertEqual(
        self.failures(
            aborted("pattern", {"pattern": ["//..."]}, "LOADING_FAILURE",
                    "syntax error"), BUILD_FAILURE),
        [("//...", "loading failure syntax error")])

  def test_no_test_is_a_failure(self):
    self.assertEqual(self.failures(completed("//a:lib"), SUCCESS),
                     [("bazel", "ran no test")])
    no_tests = {"id": {"buildFinished": {}},
                "finished": {"exitCode": {"name": "NO_TESTS_FOUND", "code": 4}}}
    self.assertEqual(self.failures(completed("//a:lib"), no_tests),
                     [("bazel", "exited with 4 NO_TESTS_FOUND")])

  def test_incomplete_events_are_a_failure(self):
    ended = [("bazel", "was ended before its time")]
    self.assertEqual(self.failures(), ended)
    self.assertEqual(self.failures(summary("//a:a_test", "PASSED")), ended)

  def test_a_failure_of_bazel_itself_is_one(self):
    crash = {"id": {"buildFinished": {}},
             "finished": {"exitCode": {"name": "BLAZE_INTERNAL_ERROR",
                                       "code": 37}}}
    self.assertEqual(
        self.failures(summary("//a:a_test", "PASSED"), crash),
        [("bazel", "exited with 37 BLAZE_INTERNAL_ERROR")])


class MainTest(unittest.TestCase):

  def run_main(self, events, *arguments, tail=""):
    directory = tempfile.mkdtemp(dir=os.environ.get("TEST_TMPDIR"))
    path = os.path.join(directory, "events.json")
    with open(path, "w") as output:
      for event in events:
        output.write(json.dumps(event) + "\n")
      output.write(tail)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
      code = test_report.main([*arguments, "asan", path])
    return code, printed.getvalue()

  def test_success(self):
    self.assertEqual(self.run_main([summary("//a:a_test", "PASSED"), SUCCESS]),
                     (0, "asan: 1 passed 0 failed\n"))

  def test_failure_prints_the_end_of_the_log(self):
    with tempfile.NamedTemporaryFile(
        "w", dir=os.environ.get("TEST_TMPDIR")) as log:
      log.write("one\ntwo\nthree\n")
      log.flush()
      code, printed = self.run_main([
          summary("//a:a_test", "FAILED"),
          result("//a:a_test", "FAILED", log.name), TESTS_FAILED
      ], "--log_lines=2")
    self.assertEqual(code, 1)
    self.assertIn("FAILED in asan: //a:a_test FAILED\n", printed)
    self.assertIn("two\nthree\n", printed)
    self.assertNotIn("one\n", printed)
    self.assertTrue(printed.endswith("asan: 0 passed 1 failed\n"))

  def test_missing_log_is_said(self):
    code, printed = self.run_main([
        summary("//a:a_test", "FAILED"),
        result("//a:a_test", "FAILED", "/nonexistent"), TESTS_FAILED])
    self.assertEqual(code, 1)
    self.assertIn("cannot read its log", printed)

  def test_half_a_line_at_the_end(self):
    code, printed = self.run_main([summary("//a:a_test", "PASSED")],
                                  tail='{"id":{"buildFin')
    self.assertEqual(code, 1)
    self.assertIn("was ended before its time", printed)
    self.assertTrue(printed.endswith("asan: 1 passed 1 failed\n"))


if __name__ == "__main__":
  unittest.main()

"""Tests that the checker of layers reports what it must, and nothing else."""

import contextlib
import io
import os
import tempfile
import unittest

from tools.lint import layers

LOAD = 'load("//tools/build_defs:defs.bzl", "cc_library")\n'


class LayersTest(unittest.TestCase):

  def check(self, files):
    """What is reported of a tree of {path: content}."""
    root = tempfile.mkdtemp(dir=os.environ.get("TEST_TMPDIR"))
    for path, content in files.items():
      os.makedirs(os.path.dirname(os.path.join(root, path)), exist_ok=True)
      with open(os.path.join(root, path), "w") as output:
        output.write(content)
    return layers.Checker(root, files).check()

  def assert_clean(self, path, *lines):
    self.assertEqual(self.check({path: "\n".join(lines) + "\n"}), [])

  def assert_reported(self, path, line, *expected):
    """One report, of the second line of `path`, that holds `expected`."""
    found = self.check({path: "// first line\n" + line + "\n"})
    self.assertEqual(len(found), 1, found)
    self.assertTrue(found[0].startswith(path + ":2: "), found[0])
    for text in expected:
      self.assertIn(text, found[0])

  def assert_dep_reported(self, package, dep, expected):
    path = package + "/BUILD"
    found = self.check({
        path: LOAD + 'cc_library(\n    name = "x",\n    deps = ["%s"],\n)\n' % dep
    })
    self.assertEqual(len(found), 1, found)
    self.assertTrue(found[0].startswith(path + ":4: depends on " + dep),
                    found[0])
    self.assertIn(expected, found[0])

  def test_ipc(self):
    self.assert_clean("ipc/pipe/stream.cc", "#include <unistd.h>",
                      '#include "absl/status/status.h"',
                      '#include "ipc/base/unique_fd.h"',
                      '#include "ipc/process/process.h"')
    self.assert_reported("ipc/pipe/stream.cc",
                         '#include "google/protobuf/message.h"',
                         "ipc never uses protobuf")
    self.assert_reported("ipc/pipe/stream.h", "#include <grpcpp/grpcpp.h>",
                         "ipc never uses gRPC")
    self.assert_reported("ipc/shm/segment.cc",
                         '#include "services/agent/agent.h"',
                         "ipc may use of Parley only itself", "layers.py")
    self.assert_reported("ipc/shm/segment.cc", '#include "gtest/gtest_prod.h"',
                         "GoogleTest")

  def test_ipc_base_is_the_lowest(self):
    self.assert_clean("ipc/base/futex.cc", '#include "ipc/base/deadline.h"')
    for folder in ("pipe", "shm", "mqueue", "process"):
      self.assert_reported("ipc/base/futex.cc",
                           '#  include "ipc/%s/x.h"  // why' % folder,
                           "ipc/base may use of Parley only itself")

  def test_agent(self):
    self.assert_clean("services/agent/agent.cc",
                      '#include "ipc/pipe/stream.h"',
                      '#include "services/agent/agent.h"')
    self.assert_reported("services/agent/agent.cc",
                         "#include <grpcpp/server.h>", "never uses gRPC")
    self.assert_reported("services/agent/agent.cc",
                         '#include "services/supervisor/supervisor.pb.h"')

  def test_supervisor(self):
    self.assert_clean("services/supervisor/main.cc",
                      '#include "google/protobuf/text_format.h"',
                      '#include "services/supervisor/supervisor.pb.h"')
    self.assert_reported("services/supervisor/main.cc",
                         "#include <grpcpp/server.h>", "never uses gRPC")
    self.assert_reported("services/supervisor/main.cc",
                         '#include "services/control/scenario.pb.h"')
    self.assert_reported("services/supervisor/supervisor.proto",
                         'import "services/control/scenario.proto";',
                         "imports services/control/scenario.proto")

  def test_control_uses_the_supervisors_protocol_only(self):
    self.assert_clean("services/control/server.cc",
                      "#include <grpcpp/server.h>",
                      '#include "services/control/control.grpc.pb.h"',
                      '#include "services/supervisor/client.h"',
                      '#include "services/supervisor/supervisor.pb.h"')
    self.assert_reported("services/control/server.cc",
                         '#include "services/supervisor/reaper.h"',
                         "services/control may use of Parley only itself")

  def test_services(self):
    for service in ("sender", "receiver", "writer", "reader", "yours"):
      path = "services/%s/main.cc" % service
      self.assert_clean(path, '#include "ipc/shm/segment.h"',
                        '#include "services/agent/agent.h"',
                        '#include "services/%s/payload.h"' % service)
      self.assert_reported(path, "#include <grpcpp/server.h>")
      self.assert_reported(path, "#include <google/protobuf/message.h>")
    self.assert_reported("services/sender/main.cc",
                         '#include "services/receiver/payload.h"')

  def test_examples_use_public_apis(self):
    self.assert_clean("examples/tour/main.cc",
                      '#include "services/control/control.grpc.pb.h"')
    self.assert_reported("examples/tour/main.cc",
                         '#include "services/control/engine.h"')
    self.assert_reported("examples/tour/main.cc",
                         '#include "services/sender/payload.h"')

  def test_only_tests_use_tests(self):
    self.assert_clean("tests/ipc/a_test.cc",
                      '#include "tests/testing/matchers.h"')
    for path in ("ipc/pipe/a.cc", "services/agent/a.cc", "tools/bench/a.cc",
                 "examples/tour/a.cc"):
      self.assert_reported(path, '#include "tests/testing/matchers.h"',
                           "only tests/ may use tests/")
    self.assert_dep_reported("tools/bench", "//tests/testing:matchers",
                             "only tests/ may use tests/")

  def test_includes_go_from_the_root(self):
    self.assert_reported("ipc/pipe/stream.cc", '#include "stream.h"',
                         "by its path from the root")

  def test_comments_are_no_includes(self):
    self.assert_clean("ipc/pipe/stream.h",
                      '//   #include "services/agent/agent.h"')

  def test_deps(self):
    self.assert_dep_reported("ipc/pipe", "//services/agent",
                             "ipc may use of Parley only itself")
    self.assert_dep_reported("ipc/pipe", "@system//:grpc++",
                             "ipc never uses gRPC")
    self.assert_dep_reported("services/sender", "@system//:protobuf",
                             "never uses protobuf")
    self.assert_dep_reported("services/control", "//services/supervisor:core",
                             "services/control may use")
    self.assert_dep_reported("services/supervisor",
                             "//services/control:scenario_cc_proto",
                             "services/supervisor may use")
    self.assertEqual(self.check({
        "services/control/BUILD":
            LOAD + 'cc_library(name = "x", deps = [":y", "@system//:grpc++",\n'
            '    "//ipc/base:futex", "//services/supervisor:client",\n'
            '    "//services/supervisor:supervisor_cc_proto"])\n'
    }), [])

  def test_deps_in_select_and_sum(self):
    found = self.check({
        "ipc/pipe/BUILD":
            LOAD + 'cc_library(name = "x", deps = [":y"] + select({\n'
            '    "//conditions:default": ["//services/agent"],\n}))\n'
    })
    self.assertEqual(len(found), 1, found)
    self.assertTrue(found[0].startswith("ipc/pipe/BUILD:3: "), found[0])

  def test_loads(self):
    found = self.check({
        "ipc/pipe/BUILD": LOAD + 'load("@rules_cc//cc:defs.bzl", "cc_test")\n',
        "tools/build_defs/BUILD": 'load(":private.bzl", "x")\n',
        "tools/build_defs/private/proto.bzl": "",
        "tools/bench/rules.bzl": "",
    })
    self.assertEqual(len(found), 2, found)
    self.assertIn("ipc/pipe/BUILD:2: loads @rules_cc//cc:defs.bzl; load "
                  "everything from //tools/build_defs:defs.bzl", found[0])
    self.assertIn("tools/bench/rules.bzl:1: a .bzl file outside of", found[1])

  def test_build_files_that_cannot_be_read(self):
    found = self.check({"ipc/pipe/BUILD": "cc_library(\n"})
    self.assertEqual(len(found), 1, found)
    self.assertIn("ipc/pipe/BUILD:1: cannot be read", found[0])

  def test_top_level(self):
    found = self.check({"WORKSPACE": "", "README.md": "", ".ci/run": "",
                        "common/util.h": "", "common/b.h": ""})
    self.assertEqual(len(found), 1, found)
    self.assertIn("common/b.h:1: common is new at the top level", found[0])

  def test_main_exits_1_for_a_tree_that_git_does_not_know(self):
    root = tempfile.mkdtemp(dir=os.environ.get("TEST_TMPDIR"))
    os.makedirs(os.path.join(root, "ipc/base"))
    with open(os.path.join(root, "ipc/base/a.h"), "w") as output:
      output.write("#include <grpcpp/grpcpp.h>\n")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
      self.assertEqual(layers.main([root]), 1)
    self.assertIn("ipc/base/a.h:1: includes grpcpp/grpcpp.h",
                  printed.getvalue())
    os.remove(os.path.join(root, "ipc/base/a.h"))
    self.assertEqual(layers.main([root]), 0)


if __name__ == "__main__":
  unittest.main()

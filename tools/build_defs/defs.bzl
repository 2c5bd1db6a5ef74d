"""The one file from which every BUILD file of Parley loads its rules.

A newer Bazel, or modules instead of WORKSPACE, is then a change in this folder
alone. What is behind a rule lives in private/.
"""

load("//tools/build_defs/private:fuzz.bzl", _cc_fuzz_test = "cc_fuzz_test")
load("//tools/build_defs/private:proto.bzl", _cc_proto_library = "cc_proto_library")
load(
    "//tools/build_defs/private:scenario.bzl",
    _scenario_run = "scenario_run",
    _scenario_test = "scenario_test",
    _service_binary = "service_binary",
)
load("//tools/build_defs/private:spin.bzl", _spin_test = "spin_test")

cc_binary = native.cc_binary
cc_fuzz_test = _cc_fuzz_test
cc_library = native.cc_library
cc_proto_library = _cc_proto_library
cc_test = native.cc_test
py_binary = native.py_binary
py_library = native.py_library
py_test = native.py_test
scenario_run = _scenario_run
scenario_test = _scenario_test
service_binary = _service_binary
sh_binary = native.sh_binary
sh_test = native.sh_test
spin_test = _spin_test

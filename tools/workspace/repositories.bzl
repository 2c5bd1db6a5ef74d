"""Every external repository of Parley. None of them is downloaded.

To move to newer rules, or to libraries built from source, replace what is
declared here; no BUILD file names anything but `@system//:NAME`.
"""

load("//tools/workspace:stubs.bzl", "STUBS", "stub_repository")
load("//tools/workspace:system.bzl", "system_repository")

def parley_repositories():
    for name in STUBS:
        stub_repository(name = name)
    system_repository(name = "system")
    native.register_toolchains("@system//:python_toolchain")

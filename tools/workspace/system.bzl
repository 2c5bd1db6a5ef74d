"""`@system`: the libraries and tools that the operating system provides.

Each library is asked of pkg-config, once, when the repository is made. What is
missing is reported by the name of the package that brings it.
"""

# Target name -> how pkg-config knows it, and the Debian package it comes in.
# `extra_libs` are libraries for which the package ships no .pc file.
_LIBRARIES = {
    "absl_base": struct(pc = ["absl_base", "absl_core_headers"], package = "libabsl-dev"),
    "absl_cleanup": struct(pc = ["absl_cleanup"], package = "libabsl-dev"),
    "absl_cord": struct(pc = ["absl_cord"], package = "libabsl-dev"),
    "absl_flags": struct(pc = ["absl_flags", "absl_flags_parse", "absl_flags_usage"], package = "libabsl-dev"),
    "absl_containers": struct(pc = ["absl_flat_hash_map", "absl_flat_hash_set", "absl_btree"], package = "libabsl-dev"),
    "absl_functional": struct(pc = ["absl_function_ref"], package = "libabsl-dev"),
    "absl_random": struct(pc = ["absl_random_random"], package = "libabsl-dev"),
    "absl_span": struct(pc = ["absl_span"], package = "libabsl-dev"),
    "absl_status": struct(pc = ["absl_status"], package = "libabsl-dev"),
    "absl_statusor": struct(pc = ["absl_statusor"], package = "libabsl-dev"),
    "absl_strings": struct(pc = ["absl_strings", "absl_str_format"], package = "libabsl-dev"),
    "absl_synchronization": struct(pc = ["absl_synchronization"], package = "libabsl-dev"),
    "absl_time": struct(pc = ["absl_time"], package = "libabsl-dev"),
    "benchmark": struct(pc = ["benchmark"], package = "libbenchmark-dev"),
    "cli11": struct(pc = ["CLI11"], package = "libcli11-dev"),
    "gmock_main": struct(pc = ["gmock_main"], package = "libgmock-dev"),
    "grpc++": struct(pc = ["grpc++", "protobuf"], package = "libgrpc++-dev"),
    "grpc++_reflection": struct(
        pc = ["grpc++", "protobuf"],
        package = "libgrpc++-dev",
        # Both register themselves by static constructors that nothing refers
        # to, so --as-needed must not drop them.
        extra_libs = ["-Wl,--no-as-needed", "-lgrpc++_reflection", "-lgrpcpp_channelz", "-Wl,--as-needed"],
    ),
    "gtest": struct(pc = ["gtest", "gmock"], package = "libgmock-dev"),
    "libcrypto": struct(pc = ["libcrypto"], package = "libssl-dev"),
    "protobuf": struct(pc = ["protobuf"], package = "libprotobuf-dev"),
    "re2": struct(pc = ["re2"], package = "libre2-dev"),
    "zeromq": struct(pc = ["libzmq"], package = "libzmq3-dev"),
}

# Libraries that pkg-config does not know: `header` is found in `include`.
_PLAIN_LIBRARIES = {
    "boost": struct(
        include = "/usr/include/boost",
        header = "interprocess/ipc/message_queue.hpp",
        linkopts = [],
        prefix = "boost",
        package = "libboost1.81-dev",
    ),
    "iceoryx": struct(
        include = "/usr/include/iceoryx/v2.0.3",
        header = "iceoryx_posh/popo/publisher.hpp",
        linkopts = ["-liceoryx_posh_roudi", "-liceoryx_posh", "-liceoryx_hoofs", "-liceoryx_platform"],
        prefix = "",
        package = "libiceoryx-posh-dev",
    ),
    "nng": struct(
        include = "/usr/include/nng",
        header = "nng.h",
        linkopts = ["-lnng"],
        prefix = "nng",
        package = "libnng-dev",
    ),
}

# Under ThreadSanitizer, map_field.h gives a class of libprotobuf two members
# more, of which the library, which was compiled without, knows nothing.
_PROTOBUF_MAP_FIELD_H = """
#pragma push_macro("__SANITIZE_THREAD__")
#undef __SANITIZE_THREAD__
#include_next "google/protobuf/map_field.h"
#pragma pop_macro("__SANITIZE_THREAD__")
"""

# Tool -> the Debian package it comes in.
_TOOLS = {
    "grpc_cpp_plugin": "protobuf-compiler-grpc",
    "protoc": "protobuf-compiler",
    "python3": "python3-minimal",
}

# Bazel 4.2 starts Python programs by the name `python`, which Debian lacks.
_PYTHON = """
py_runtime(
    name = "python_runtime",
    interpreter_path = "{python3}",
    python_version = "PY3",
    stub_shebang = "#!/usr/bin/env python3",
)

py_runtime_pair(
    name = "python_runtime_pair",
    py3_runtime = ":python_runtime",
)

toolchain(
    name = "python_toolchain",
    toolchain = ":python_runtime_pair",
    toolchain_type = "@bazel_tools//tools/python:toolchain_type",
)
"""

def _missing(what, package):
    fail("%s is not installed: run tools/setup, or install the package %s (its Debian name)" % (what, package))

def _pkg_config(ctx, library, flag):
    arguments = ["pkg-config", flag] + library.pc
    result = ctx.execute(arguments)
    if result.return_code != 0:
        _missing(" ".join(library.pc), library.package)
    return [word for word in result.stdout.strip().split(" ") if word]

def _without_repeats(linkopts):
    """The last mention of each library: order enough for shared libraries."""
    kept = []
    for word in reversed(linkopts):
        if word not in kept and not word.startswith("-Wl,"):
            kept.append(word)
    return reversed(kept)

def _system_repository_impl(ctx):
    if not ctx.which("pkg-config"):
        _missing("pkg-config", "pkg-config")
    build = [
        'load("@bazel_tools//tools/python:toolchain.bzl", "py_runtime_pair")',
        'package(default_visibility = ["//visibility:public"])',
    ]
    for name, library in sorted(_LIBRARIES.items()):
        linkopts = ["-Wl,--as-needed"] + _without_repeats(_pkg_config(ctx, library, "--libs"))
        build.append("""
cc_library(
    name = "{name}",
    copts = {cflags},
    linkopts = {linkopts},
    deps = {deps},
)""".format(
            name = name,
            deps = [":protobuf_headers"] if "protobuf" in library.pc else [],
            cflags = repr(_pkg_config(ctx, library, "--cflags")),
            linkopts = repr(linkopts + getattr(library, "extra_libs", [])),
        ))
    for name, library in sorted(_PLAIN_LIBRARIES.items()):
        if not ctx.path(library.include + "/" + library.header).exists:
            _missing(name, library.package)
        folder = "plain/" + name
        ctx.symlink(library.include, (folder + "/" + library.prefix).rstrip("/"))
        build.append("""
cc_library(
    name = "{name}",
    hdrs = glob(["{folder}/**"]),
    includes = ["{folder}"],
    linkopts = {linkopts},
)""".format(name = name, folder = folder, linkopts = repr(library.linkopts)))
    for tool, package in sorted(_TOOLS.items()):
        path = ctx.which(tool)
        if not path:
            _missing(tool, package)
        ctx.file("bin/" + tool, '#!/bin/sh\nexec "%s" "$@"\n' % path)
        build.append("""
sh_binary(
    name = "{tool}",
    srcs = ["bin/{tool}"],
)""".format(tool = tool))
    ctx.file("include/google/protobuf/map_field.h", _PROTOBUF_MAP_FIELD_H)
    build.append("""
cc_library(
    name = "protobuf_headers",
    hdrs = ["include/google/protobuf/map_field.h"],
    includes = ["include"],
    visibility = ["//visibility:private"],
)""")
    build.append(_PYTHON.format(python3 = ctx.which("python3")))
    ctx.file("WORKSPACE", 'workspace(name = "%s")\n' % ctx.name)
    ctx.file("BUILD", "\n".join(build) + "\n")

system_repository = repository_rule(
    implementation = _system_repository_impl,
    configure = True,
    environ = ["PATH", "PKG_CONFIG_PATH"],
    local = True,
)

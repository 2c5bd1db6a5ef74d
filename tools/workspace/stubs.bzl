"""Stands in for the repositories that Bazel 4.2 itself asks for.

Its own BUILD files load rules_cc, rules_java and rules_proto, and every
cc_test names a coverage tool, all of which would be downloaded. Bazel 4.2 still
has the rules built in, so re-exporting those is enough to build C++ with no
network at all.
"""

def _reexport(rules):
    return "".join(["%s = native.%s\n" % (rule, rule) for rule in rules])

STUBS = {
    "remote_coverage_tools": {
        "BUILD": """filegroup(
    name = "coverage_report_generator",
    srcs = [],
    visibility = ["//visibility:public"],
)
""",
    },
    "rules_cc": {
        "cc/BUILD": "",
        "cc/defs.bzl": _reexport([
            "cc_binary",
            "cc_import",
            "cc_library",
            "cc_proto_library",
            "cc_test",
            "cc_toolchain",
            "cc_toolchain_suite",
            "fdo_prefetch_hints",
            "fdo_profile",
            "objc_library",
        ]),
    },
    "rules_java": {
        "java/BUILD": "",
        "java/defs.bzl": _reexport([
            "java_binary",
            "java_import",
            "java_library",
            "java_plugin",
            "java_proto_library",
            "java_runtime",
            "java_test",
            "java_toolchain",
        ]),
    },
    "rules_proto": {
        "proto/BUILD": "",
        "proto/defs.bzl": _reexport(["proto_lang_toolchain", "proto_library"]),
    },
}

def _stub_repository_impl(ctx):
    ctx.file("WORKSPACE", 'workspace(name = "%s")\n' % ctx.name)
    for path, content in STUBS[ctx.name].items():
        ctx.file(path, content)

stub_repository = repository_rule(
    implementation = _stub_repository_impl,
    doc = "A repository made of nothing but the literal files of STUBS.",
)

"""Protocol buffers by the system's protoc."""

ProtoSourcesInfo = provider(
    doc = "The .proto files of a library and of all it depends on.",
    fields = {"sources": "depset of File"},
)

def _protoc_impl(ctx):
    sources = depset(ctx.files.srcs, transitive = [dep[ProtoSourcesInfo].sources for dep in ctx.attr.deps])
    outputs = []
    for src in ctx.files.srcs:
        stem = src.basename[:-len(".proto")]
        for suffix in [".pb.h", ".pb.cc"] + ([".grpc.pb.h", ".grpc.pb.cc"] if ctx.attr.grpc else []):
            outputs.append(ctx.actions.declare_file(stem + suffix))
    arguments = ctx.actions.args()
    arguments.add("--proto_path=.")
    arguments.add("--cpp_out=" + ctx.bin_dir.path)
    tools = []
    if ctx.attr.grpc:
        arguments.add("--grpc_out=" + ctx.bin_dir.path)
        arguments.add("--plugin=protoc-gen-grpc=" + ctx.executable._grpc_cpp_plugin.path)
        tools.append(ctx.executable._grpc_cpp_plugin)
    arguments.add_all(ctx.files.srcs)
    ctx.actions.run(
        executable = ctx.executable._protoc,
        arguments = [arguments],
        inputs = sources,
        tools = tools,
        outputs = outputs,
        mnemonic = "Protoc",
        progress_message = "Generating C++ from %s" % ctx.label,
    )
    return [
        DefaultInfo(files = depset(outputs)),
        OutputGroupInfo(
            hdrs = depset([f for f in outputs if f.extension == "h"]),
            srcs = depset([f for f in outputs if f.extension == "cc"]),
        ),
        ProtoSourcesInfo(sources = sources),
    ]

protoc = rule(
    implementation = _protoc_impl,
    attrs = {
        "srcs": attr.label_list(allow_files = [".proto"]),
        "deps": attr.label_list(providers = [ProtoSourcesInfo]),
        "grpc": attr.bool(),
        "_protoc": attr.label(default = "@system//:protoc", executable = True, cfg = "exec"),
        "_grpc_cpp_plugin": attr.label(default = "@system//:grpc_cpp_plugin", executable = True, cfg = "exec"),
    },
)

def cc_proto_library(name, srcs, deps = [], grpc = False, visibility = None, **kwargs):
    """A C++ library of the messages, and with `grpc` the services, of .proto files.

    Args:
      name: the cc_library to depend on.
      srcs: .proto files, imported by their path from the root.
      deps: other cc_proto_library targets whose files they import.
      grpc: also generate the RPC services (NAME.grpc.pb.h).
      visibility: as for any rule.
      **kwargs: passed to every target made.
    """
    protoc(
        name = name + "_protoc",
        srcs = srcs,
        deps = [_protoc_name(dep) for dep in deps],
        grpc = grpc,
        visibility = visibility,
        **kwargs
    )
    for group in ["hdrs", "srcs"]:
        native.filegroup(
            name = name + "_" + group,
            srcs = [name + "_protoc"],
            output_group = group,
            visibility = ["//visibility:private"],
            **kwargs
        )
    native.cc_library(
        name = name,
        srcs = [name + "_srcs"],
        hdrs = [name + "_hdrs"],
        # Generated code is not ours to mend.
        copts = ["-w"],
        visibility = visibility,
        deps = deps + ["@system//:grpc++" if grpc else "@system//:protobuf"],
        **kwargs
    )

def _protoc_name(dep):
    if ":" in dep:
        return dep + "_protoc"
    return dep + ":" + dep.split("/")[-1] + "_protoc"

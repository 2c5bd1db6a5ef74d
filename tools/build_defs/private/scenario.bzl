"""Scenarios as Bazel targets: `scenario_test` and `scenario_run`.

Both make a small script that starts `parley run` on its runfiles. Everything
that Bazel tells a test (filter, shard, seed, time-out, where reports go) reaches
parley by the environment, and `args` by the command line, unchanged.
"""

_VERDICTS = ["passed", "failed", "inconclusive", "time_limit", "invalid"]

_SCRIPT = """#!/bin/bash
# Generated for {label}.
set -eu
if [[ -n "${{TEST_SRCDIR:-}}" ]]; then
  runfiles="$TEST_SRCDIR"
elif [[ -d "$0.runfiles" ]]; then
  runfiles="$(cd "$0.runfiles" && pwd)"
else
  runfiles="${{RUNFILES_DIR:?has no runfiles: start it with bazel run}}"
fi
export RUNFILES_DIR="$runfiles"
# So that messages name scenarios by their path in the repository.
cd "$runfiles/{workspace}"
exec "$PWD/{parley}" run --workspace={workspace} {options} "$@" {scenarios}
"""

def _quote(text):
    return "'" + text.replace("'", "'\\''") + "'"

def _scenario_impl(ctx, scenarios, options):
    script = ctx.actions.declare_file(ctx.label.name)
    ctx.actions.write(
        output = script,
        content = _SCRIPT.format(
            label = ctx.label,
            workspace = ctx.workspace_name,
            parley = ctx.executable._parley.short_path,
            options = " ".join(options),
            scenarios = " ".join([_quote(f.short_path) for f in scenarios]),
        ),
        is_executable = True,
    )
    runfiles = ctx.runfiles(files = scenarios + ctx.files.binaries + ctx.files.data)
    for dep in ctx.attr.binaries + ctx.attr.data + [ctx.attr._parley]:
        runfiles = runfiles.merge(dep[DefaultInfo].default_runfiles)
    return [DefaultInfo(executable = script, runfiles = runfiles)]

def _scenario_test_impl(ctx):
    return _scenario_impl(ctx, [ctx.file.scenario], ["--verdict=" + ctx.attr.verdict])

def _scenario_run_impl(ctx):
    return _scenario_impl(ctx, ctx.files.scenarios, [])

_ATTRS = {
    "binaries": attr.label_list(
        doc = "The programs that the scenario names by their labels.",
        cfg = "target",
    ),
    "data": attr.label_list(
        doc = "Files that these read.",
        allow_files = True,
    ),
    "_parley": attr.label(
        default = "//services/control:parley",
        executable = True,
        cfg = "target",
    ),
}

scenario_test = rule(
    implementation = _scenario_test_impl,
    doc = "Runs a scenario, and passes if its verdict is the expected one.",
    attrs = dict(
        _ATTRS,
        scenario = attr.label(
            doc = "The scenario file.",
            allow_single_file = [".textproto"],
            mandatory = True,
        ),
        verdict = attr.string(
            doc = "What must come of it: `failed` for a scenario that shows " +
                  "that something is found, `invalid` for a file that must be " +
                  "refused. A failure of Parley's own is never expected.",
            default = "passed",
            values = _VERDICTS,
        ),
    ),
    test = True,
)

scenario_run = rule(
    implementation = _scenario_run_impl,
    doc = "Runs scenarios in the terminal, by `bazel run`.",
    attrs = dict(
        _ATTRS,
        scenarios = attr.label_list(
            doc = "The scenario files, in their order.",
            allow_files = [".textproto"],
            mandatory = True,
        ),
    ),
    executable = True,
)

def service_binary(name, srcs, tags = [], **kwargs):
    """A cc_binary that is a service: it is started by a supervisor.

    `bazel query 'attr(tags, parley-service, //...)'` lists them all.

    Args:
      name: of the binary.
      srcs: as of cc_binary.
      tags: as of cc_binary.
      **kwargs: passed to cc_binary, unchanged.
    """
    native.cc_binary(
        name = name,
        srcs = srcs,
        tags = tags + ["parley-service"],
        **kwargs
    )

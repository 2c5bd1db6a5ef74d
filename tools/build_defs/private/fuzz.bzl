"""Fuzz targets as tests."""

def cc_fuzz_test(name, srcs, corpus, deps = [], size = "medium", tags = []):
    """A target with LLVMFuzzerTestOneInput, and the inputs to begin with.

    An ordinary `bazel test` runs it once for each file of the corpus. With
    --config=fuzz, libFuzzer looks for more for 30 s, or for
    --test_env=FUZZ_SECONDS=N; see fuzz_test.sh.

    Args:
      name: of the test.
      srcs: with LLVMFuzzerTestOneInput.
      corpus: files, each an input; at least one.
      deps: as for a cc_test.
      size: as for a cc_test.
      tags: as for a cc_test.
    """
    native.cc_binary(
        name = name + "_target",
        testonly = True,
        srcs = srcs,
        linkopts = select({
            "//tools/build_defs:libfuzzer": ["-fsanitize=fuzzer"],
            "//conditions:default": [],
        }),
        visibility = ["//visibility:private"],
        deps = deps + select({
            "//tools/build_defs:libfuzzer": [],
            "//conditions:default": ["//tests/testing:corpus_main"],
        }),
    )
    native.sh_test(
        name = name,
        size = size,
        srcs = ["//tools/build_defs/private:fuzz_test.sh"],
        args = select({
                   "//tools/build_defs:libfuzzer": ["fuzz"],
                   "//conditions:default": ["corpus"],
               }) + ["$(location :%s_target)" % name] +
               ["$(location %s)" % file for file in corpus],
        data = [":%s_target" % name] + corpus,
        tags = tags + ["fuzz"],
    )

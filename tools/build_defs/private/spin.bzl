"""Models checked by spin."""

def spin_test(name, model, includes = [], bounds = {}, expect = None, tags = [], **kwargs):
    """Visits every state of a model; see spin_test.py.

    Args:
      name: of the test.
      model: the Promela source.
      includes: what it includes, from the same folder.
      bounds: what to define for it: its bounds, and the flaw if it has one.
      expect: words of the assertion that has to fail, of a model with a flaw.
      tags: as for any test.
      **kwargs: passed to the test, unchanged.
    """
    native.py_test(
        name = name,
        srcs = ["//tools/build_defs/private:spin_test.py"],
        args = ["$(location %s)" % model] +
               ["--include=$(location %s)" % include for include in includes] +
               ["-D%s=%s" % item for item in sorted(bounds.items())] +
               (["--expect=" + expect] if expect else []),
        data = [model] + includes,
        main = "//tools/build_defs/private:spin_test.py",
        # No C++ of ours runs. One spin keeps one CPU busy.
        tags = tags + ["model", "no-sanitizer"],
        **kwargs
    )

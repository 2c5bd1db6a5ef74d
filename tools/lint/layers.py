"""Checks that the layers of Parley hold.

Usage: layers.py ROOT

Reads the #include and import lines of every tracked source, the loads and deps
of every BUILD file, and the names at the top level of the tree at ROOT. What
may use what is the table LAYERS below. Prints each violation as

    FILE:LINE: what is wrong; what to do

and exits 1 if there is any. Visibility guards the same borders, but a public
target is public to all, and headers of the system belong to no target.
"""

import ast
import collections
import os
import re
import subprocess
import sys

# The libraries that not everything may use: by the start of an #include, and by
# the name in `@system`.
LIBRARIES = {
    "gRPC": (("grpc/", "grpcpp/", "grpc++/"), ("grpc++",)),
    "protobuf": (("google/protobuf/",), ("protobuf",)),
    "CLI11": (("CLI/",), ("cli11",)),
    "GoogleTest": (("gtest/", "gmock/"), ("gtest", "gmock")),
    "Benchmark": (("benchmark/",), ("benchmark",)),
}

# tree: the folder the row is for; of several that fit, the deepest
#   counts, and of those the first. "*" is any one folder.
# uses: what of Parley it may use besides itself: folders that end in "/", or
#   targets, where DIR/X is //DIR:X and X.h, and DIR/X_cc_proto is
#   //DIR:X_cc_proto, X.proto and what is generated from it.
# libraries: the ones of LIBRARIES that it may use.
Layer = collections.namedtuple("Layer", ["tree", "uses", "libraries"])

_EVERY_LIBRARY = tuple(LIBRARIES)

LAYERS = (
    Layer("ipc", ("ipc/",), ()),
    # The operating system, wrapped: no channel may leak into it.
    Layer("ipc/base", (), ()),
    # The one library of ipc for those who have protobuf anyway.
    Layer("ipc/proto", ("ipc/",), ("protobuf",)),
    # What speaks to a service's parent must not drag gRPC into the service.
    Layer("services/agent", ("ipc/",), ()),
    # Its main is that of a service: it is granted its sockets as any other is.
    Layer("services/supervisor",
          ("ipc/", "services/agent/environment", "services/agent/listen_fds",
           "services/agent/notify"),
          ("protobuf", "CLI11")),
    Layer(
        "services/control",
        ("ipc/", "services/agent/", "services/supervisor/client",
         "services/supervisor/dependency_graph",
         "services/supervisor/proto_time",
         "services/supervisor/supervisor_cc_proto"),
        ("gRPC", "protobuf", "CLI11")),
    # Any other service: sender, receiver, writer, reader, and yours.
    Layer("services/*", ("ipc/", "services/agent/"), ("CLI11",)),
    # Examples do what a user of Parley can do, so through public APIs only.
    Layer(
        "examples",
        ("ipc/", "services/agent/", "services/control/client",
         "services/control/control_cc_proto",
         "services/control/scenario_cc_proto"),
        ("gRPC", "protobuf", "CLI11", "Benchmark")),
    Layer("tools", ("ipc/", "services/"), _EVERY_LIBRARY),
    Layer("tests", ("ipc/", "services/", "examples/", "tools/"),
          _EVERY_LIBRARY),
)

TOP_LEVEL = ("WORKSPACE", "BUILD", "ipc", "services", "examples", "tests",
             "tools", "README.md", "LICENSE", "CONTRIBUTING.md")

DEFS = "//tools/build_defs:defs.bzl"

# Where Bazel's own rules are wrapped, so where other loads are in place.
_WRAPPERS = ("tools/build_defs/", "tools/workspace/")

_SOURCES = (".h", ".cc", ".c", ".inc", ".proto")
_INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
_IMPORT = re.compile(r'^\s*import\s+(?:public\s+|weak\s+)?"([^"]+)"')
_OF_PROTO = re.compile(r"((\.grpc)?\.pb\.h|\.proto)$")


def layer_of(path):
  """The row of LAYERS for a file, or None if it is in none of them."""
  found = None
  for layer in LAYERS:
    pattern = layer.tree.split("/")
    folders = path.split("/")[:-1]
    if len(folders) < len(pattern) or not all(
        want in ("*", have) for want, have in zip(pattern, folders)):
      continue
    # Of rows as deep, the first, so an exact name goes before "*".
    if found is None or len(pattern) > found.tree.count("/") + 1:
      found = layer
  return found


def _home(layer, path):
  """The folder that is the file's own layer, which it may use freely."""
  depth = layer.tree.count("/") + 1
  return "/".join(path.split("/")[:depth]) + "/"


def _may_use(layer, path, used):
  """Whether the file `path` may use `used`, as in Layer.uses."""
  if layer is None:
    return True
  for allowed in (_home(layer, path),) + layer.uses:
    if used.startswith(allowed) if allowed.endswith("/") else used == allowed:
      return True
  return False


def _library_of(name, kind):
  for library, starts in LIBRARIES.items():
    if name.startswith(starts[kind]):
      return library
  return None


class Checker:

  def __init__(self, root, files):
    """files: paths relative to root of what belongs to the tree."""
    self._root = root
    self._files = sorted(set(files))
    self._found = []

  def check(self):
    """Returns the violations, each a line of text."""
    self._check_top_level()
    for path in self._files:
      base = os.path.basename(path)
      try:
        with open(os.path.join(self._root, path), errors="replace") as source:
          text = source.read()
      except (FileNotFoundError, IsADirectoryError):
        continue  # removed and not yet committed, or a submodule
      if base in ("BUILD", "BUILD.bazel"):
        self._check_build(path, text)
      elif path.endswith(".bzl"):
        self._check_bzl(path)
      elif path.endswith(_SOURCES):
        self._check_source(path, text)
    return self._found

  def _report(self, path, line, text):
    self._found.append("%s:%d: %s" % (path, line, text))

  def _check_top_level(self):
    for name in sorted({path.split("/")[0] for path in self._files}):
      if name not in TOP_LEVEL and not name.startswith("."):
        first = next(p for p in self._files if p.split("/")[0] == name)
        self._report(
            first, 1,
            "%s is new at the top level; put it beside the code it belongs to, "
            "below one of %s" % (name, ", ".join(TOP_LEVEL[2:7])))

  def _check_bzl(self, path):
    if not path.startswith(_WRAPPERS):
      self._report(
          path, 1, "a .bzl file outside of %s; move it to "
          "tools/build_defs/private and export it from defs.bzl" %
          " and ".join(_WRAPPERS))

  def _check_source(self, path, text):
    for number, line in enumerate(text.splitlines(), 1):
      if path.endswith(".proto"):
        match = _IMPORT.match(line)
        if match:
          self._check_use(path, number, match.group(1), "imports")
        continue
      match = _INCLUDE.match(line)
      if not match:
        continue
      bracket, name = match.groups()
      if bracket == '"' and "/" not in name:
        self._report(path, number,
                     'includes "%s"; include it by its path from the root' % name)
      self._check_use(path, number, name, "includes")

  def _check_use(self, path, number, name, verb):
    layer = layer_of(path)
    top = name.split("/")[0]
    if name.startswith("tests/") and not path.startswith("tests/"):
      self._report(
          path, number, "%s %s; only tests/ may use tests/, so move what is "
          "shared to where it belongs" % (verb, name))
    elif top in TOP_LEVEL:
      used = _OF_PROTO.sub("_cc_proto", name)
      if used.endswith(".h"):
        used = used[:-len(".h")]
      if not _may_use(layer, path, used):
        self._report(path, number, "%s %s; %s" % (verb, name, _rule(layer)))
    else:
      library = _library_of(name, 0)
      if library and layer and library not in layer.libraries:
        self._report(path, number, "%s %s; %s" %
                     (verb, name, _library_rule(layer, library)))

  def _check_build(self, path, text):
    try:
      tree = ast.parse(text)
    except SyntaxError as error:
      self._report(path, error.lineno or 1, "cannot be read: %s" % error.msg)
      return
    for node in ast.walk(tree):
      if not isinstance(node, ast.Call):
        continue
      if isinstance(node.func, ast.Name) and node.func.id == "load":
        loaded = node.args[0] if node.args else None
        if not path.startswith(_WRAPPERS) and (
            not isinstance(loaded, ast.Constant) or loaded.value != DEFS):
          self._report(
              path, node.lineno, "loads %s; load everything from %s" %
              (getattr(loaded, "value", "?"), DEFS))
      for keyword in node.keywords:
        if keyword.arg == "deps":
          for value in ast.walk(keyword.value):
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
              self._check_dep(path, value.lineno, value.value)

  def _check_dep(self, path, number, dep):
    layer = layer_of(path)
    if dep.startswith("@system//:"):
      library = _library_of(dep[len("@system//:"):], 1)
      if library and layer and library not in layer.libraries:
        self._report(path, number, "depends on %s; %s" %
                     (dep, _library_rule(layer, library)))
      return
    if not dep.startswith("//") or dep.startswith("//conditions:"):
      return
    package, _, name = dep[2:].partition(":")
    name = name or package.split("/")[-1]
    if package.split("/")[0] == "tests" and not path.startswith("tests/"):
      self._report(
          path, number, "depends on %s; only tests/ may use tests/, so move "
          "what is shared to where it belongs" % dep)
      return
    if not _may_use(layer, path, package + "/" + name):
      self._report(path, number, "depends on %s; %s" % (dep, _rule(layer)))


def _rule(layer):
  uses = ", ".join(name.rstrip("/") for name in layer.uses)
  return ("%s may use of Parley only itself%s%s: move the code to the layer "
          "above, or what it needs to one below (tools/lint/layers.py)" %
          (layer.tree, " and " if uses else "", uses))


def _library_rule(layer, library):
  return ("%s never uses %s: keep that to the layers above "
          "(tools/lint/layers.py)" % (layer.tree, library))


def tracked_files(root):
  """What git tracks below root, or all that is there if git does not know."""
  try:
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "-C", root, "ls-files", "-z"],
        check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    files = [path for path in listed.stdout.decode().split("\0") if path]
    if files:
      return files
  except (OSError, subprocess.CalledProcessError):
    pass
  files = []
  for folder, subfolders, names in os.walk(root):
    relative = os.path.relpath(folder, root)
    if relative == ".":
      subfolders[:] = [name for name in subfolders
                       if not name.startswith(("bazel-", ".git", ".npm"))]
      names = [name for name in names if not name.startswith("bazel-")]
    files += [os.path.normpath(os.path.join(relative, name)) for name in names]
  return files


def main(argv):
  if len(argv) != 1:
    print(__doc__, file=sys.stderr)
    return 64
  found = Checker(argv[0], tracked_files(argv[0])).check()
  for line in found:
    print(line)
  return 1 if found else 0


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))

"""Has clang-tidy look at our own code only: see own_code.cc."""

import os
import re
import subprocess

SOURCE = os.path.join(os.path.dirname(os.path.realpath(__file__)),
                      "own_code.cc")


def flags(folder):
  """The flags of clang-tidy for it, whose plugin is made in `folder`; none where
  clang's own headers are not installed.

  Raises subprocess.CalledProcessError if the plugin cannot be made."""
  version = re.search(r"LLVM version (\d+)", subprocess.run(
      ["clang-tidy", "--version"], stdout=subprocess.PIPE, text=True,
      check=True).stdout)
  include = "/usr/lib/llvm-%s/include" % (version and version[1])
  # Of two packages.
  if not all(os.path.exists(include + header) for header in (
      "/clang/AST/ASTContext.h", "/llvm/ADT/StringRef.h")):
    return []
  plugin = os.path.join(folder, "own_code.so")
  subprocess.run(["g++", "-std=c++17", "-fno-rtti", "-shared", "-fPIC",
                  "-isystem", include, SOURCE, "-o", plugin],
                 stderr=subprocess.PIPE, text=True, check=True)
  return ["--load=" + plugin]

"""What a compiler says of a type that is not SharedMemorySafe.

It has to refuse it, and to name the reason: that is what the concepts are
called as they are for.
"""

import shutil
import subprocess
import unittest

_SOURCE = """
#include <array>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>
#include "ipc/shm/shared_memory_safe.h"

struct Pointer { int* p; };
struct Deep { int n; struct { double d; std::optional<Pointer> p[2]; } in; };
union Union { int n; double d; };
struct Fine { int n; char name[32]; std::optional<double> d; };
struct alignas(128) Aligned { int n; };

template <ipc::shm::SharedMemorySafe T>
struct Value {};

Value<%s> value;
"""

_POINTERS = "IsKnownToHoldNoPointers"
_BYTES = "IsTriviallyCopyableAndDestructible"
_REFUSED = {
    "int*": _POINTERS,
    "Pointer": _POINTERS,
    "Deep": _POINTERS,
    "Union": _POINTERS,
    "std::optional<int*>": _POINTERS,
    "std::variant<int*, int>": _POINTERS,
    "std::array<std::optional<const char*>, 2>": _POINTERS,
    "std::vector<int>::iterator": _POINTERS,
    "std::string": _BYTES,
    "std::unique_ptr<int>": _BYTES,
    "int[3]": "IsNotACArray",
    "const int": "IsAnObjectWithoutQualifiers",
    "Aligned": "IsAtMost64ByteAligned",
}
_ACCEPTED = ["int", "Fine", "std::array<Fine, 3>"]


def _compile(compiler, type_name):
  return subprocess.run(
      [compiler, "-std=c++20", "-fsyntax-only", "-I.", "-x", "c++", "-"],
      input=_SOURCE % type_name, capture_output=True, text=True, check=False)


class RefusedTypesTest(unittest.TestCase):

  def setUp(self):
    super().setUp()
    self.compilers = [name for name in ("g++", "clang++") if shutil.which(name)]
    self.assertTrue(self.compilers, "neither g++ nor clang++ is in PATH")

  def test_refused(self):
    for compiler in self.compilers:
      for type_name, reason in _REFUSED.items():
        with self.subTest(compiler=compiler, type=type_name):
          result = _compile(compiler, type_name)
          self.assertNotEqual(result.returncode, 0)
          self.assertIn(reason, result.stderr)

  def test_accepted(self):
    for compiler in self.compilers:
      for type_name in _ACCEPTED:
        with self.subTest(compiler=compiler, type=type_name):
          result = _compile(compiler, type_name)
          self.assertEqual(result.returncode, 0, result.stderr)


if __name__ == "__main__":
  unittest.main()

"""own_code.cc takes nothing away that is found in our own code."""

import os
import re
import shutil
import subprocess
import tempfile
import unittest

from tools.lint import own_code

_CHECKS = "-*,bugprone-use-after-move,modernize-use-nullptr"
# In a header of a system, in one of ours, which a template's instance needs,
# and in a source.
_FILES = {
    "system/theirs.h": """
inline int* Theirs() { return 0; }
""",
    "ours.h": """
#include <utility>
#include <vector>
namespace ours {
template <typename T> void Take(T value) {
  std::vector<T> all;
  all.push_back(std::move(value));
  all.push_back(value);
}
}
""",
    "source.cc": """
#include <string>
#include <theirs.h>
#include "ours.h"
int main() {
  int* pointer = 0;
  ours::Take(std::string("x"));
  return pointer == Theirs() ? 0 : 1;
}
""",
}


@unittest.skipUnless(shutil.which("clang-tidy"), "clang-tidy is not installed")
class OwnCodeTest(unittest.TestCase):

  def setUp(self):
    folder = tempfile.TemporaryDirectory(dir=os.environ.get("TEST_TMPDIR"))
    self.addCleanup(folder.cleanup)
    self._folder = folder.name
    for path, text in _FILES.items():
      path = os.path.join(self._folder, path)
      os.makedirs(os.path.dirname(path), exist_ok=True)
      with open(path, "w") as file:
        file.write(text)

  def _found(self, *flags):
    done = subprocess.run(
        ["clang-tidy", "--checks=" + _CHECKS, "--header-filter=ours", *flags,
         "source.cc", "--", "-std=c++20", "-isystem", "system"],
        cwd=self._folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, check=True)
    found = [line for line in done.stdout.splitlines() if ": warning: " in line]
    # How many there are, with those in the system's headers, which it hides.
    return found, int(re.search(r"(\d+) warnings? generated", done.stderr)[1])

  def test_finds_the_same(self):
    flags = own_code.flags(self._folder)
    if not flags:
      self.skipTest("libclang-dev or llvm-dev is not installed")
    expected, by_itself = self._found()
    self.assertEqual([line.rsplit("[", 1)[1] for line in expected],
                     ["bugprone-use-after-move]", "modernize-use-nullptr]"])
    found, all_of_them = self._found(*flags)
    self.assertEqual(found, expected)
    self.assertLess(all_of_them, by_itself / 2)


if __name__ == "__main__":
  unittest.main()

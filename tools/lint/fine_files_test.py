"""Tests of fine_files.py."""

import os
import tempfile
import unittest

from tools.lint.fine_files import FineFiles


class FineFilesTest(unittest.TestCase):

  def setUp(self):
    folder = tempfile.TemporaryDirectory()
    self.addCleanup(folder.cleanup)
    self.addCleanup(os.chdir, os.getcwd())
    os.chdir(folder.name)
    os.mkdir("lib")
    os.mkdir("made")
    self._write("a.cc", '#include "lib/a.h"\n#include "made.h"\nint a;\n')
    self._write("b.cc", "int b;\n")
    self._write("lib/a.h", '#include <vector>\n  #  include "deep.h"\n')
    self._write("lib/deep.h", "// deep\n")
    self._write("made/made.h", "// made\n")

  def _write(self, path, text):
    with open(path, "w") as file:
      file.write(text)

  def _fine(self, conditions="v1", folder="cache"):
    return FineFiles(folder, [".", "made"], conditions)

  def _is_fine(self, path, **options):
    fine = self._fine(**options)
    return fine.has(fine.key(path))

  def _add(self, path):
    fine = self._fine()
    fine.add(fine.key(path))

  def test_knows_what_was_added(self):
    self.assertFalse(self._is_fine("a.cc"))
    self._add("a.cc")
    self.assertTrue(self._is_fine("a.cc"))
    self.assertFalse(self._is_fine("b.cc"))

  def test_a_change_of_anything_included_counts(self):
    for path in ("a.cc", "lib/a.h", "lib/deep.h", "made/made.h"):
      self._add("a.cc")
      with open(path, "a") as file:
        file.write("// more\n")
      self.assertFalse(self._is_fine("a.cc"), path)

  def test_a_change_of_the_conditions_counts(self):
    self._add("a.cc")
    self.assertFalse(self._is_fine("a.cc", conditions="v2"))

  def test_a_header_that_comes_to_be_found_elsewhere_counts(self):
    self._add("a.cc")
    self._write("made.h", "// another\n")
    self.assertFalse(self._is_fine("a.cc"))

  def test_the_same_text_under_another_name_is_another_file(self):
    self._write("c.cc", "int b;\n")
    self._add("b.cc")
    self.assertFalse(self._is_fine("c.cc"))

  def test_headers_that_include_each_other(self):
    self._write("lib/deep.h", '#include "a.h"\n')
    self._add("a.cc")
    self.assertTrue(self._is_fine("a.cc"))

  def test_without_a_folder_nothing_is_remembered(self):
    fine = self._fine(folder=None)
    fine.add(fine.key("a.cc"))
    self.assertFalse(fine.has(fine.key("a.cc")))


if __name__ == "__main__":
  unittest.main()

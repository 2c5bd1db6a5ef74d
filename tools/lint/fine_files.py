"""Remembers which files a slow check has found fine."""

import hashlib
import os
import re


class FineFiles:
  """Which files a check has found fine: as long as neither they, nor what they
  include in quotes, nor `conditions` change. Headers of the system do not
  count, so a folder is for one set of installed packages.

  To be added, a file needs the same key before and after the check, by two
  objects: each reads a file once."""

  def __init__(self, folder, include_path, conditions):
    """folder: where to remember, or None; include_path: folders."""
    self._folder = folder
    self._include_path = include_path
    self._conditions = conditions.encode()
    self._includes = {}  # by path
    if folder:
      os.makedirs(folder, exist_ok=True)

  def key(self, path):
    """What `path`, relative to the current folder, is remembered by."""
    key = hashlib.sha256(self._conditions + path.encode())
    seen = set()
    pending = [path]
    while pending:
      path = pending.pop()
      if path in seen:
        continue
      seen.add(path)
      if path not in self._includes:
        self._includes[path] = self._read(path)
      digest, includes = self._includes[path]
      key.update(digest)
      pending += includes
    return key.hexdigest()

  def has(self, key):
    return bool(self._folder) and os.path.exists(
        os.path.join(self._folder, key))

  def add(self, key):
    if self._folder:
      open(os.path.join(self._folder, key), "w").close()

  def _read(self, path):
    """A digest of the file, and the files that it includes."""
    with open(path, "rb") as file:
      content = file.read()
    includes = []
    for name in re.findall(rb'^\s*#\s*include\s+"([^"]+)"', content, re.M):
      for folder in [os.path.dirname(path)] + self._include_path:
        included = os.path.normpath(os.path.join(folder, name.decode()))
        if os.path.isfile(included):
          includes.append(included)
          break
    return hashlib.sha256(content).digest(), includes

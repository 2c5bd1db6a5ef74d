"""Checks a model by spin, exhaustively.

Usage: spin_test.py MODEL [--include FILE...] [-DNAME=VALUE...]
                    [--expect ASSERTION]

Passes if spin visits every state that MODEL has within the bounds that the
definitions set, and finds nothing: no assertion fails, nothing is stuck but
where the model says that it may end, and all happens that it wants to MEET.
With --expect, passes only if an assertion with the words ASSERTION fails: that
is for models with a flaw built in, and shows that the checks find it.

To look further than a test has time for, set PARLEY_SPIN to definitions of your
own, which go before those of the target, and PARLEY_SPIN_MIB to the memory:

  bazel test //tests/ipc/mqueue/model:slot_ring_test \\
      --test_env=PARLEY_SPIN='-DCRASHES=2 -DMESSAGES=3' \\
      --test_env=PARLEY_SPIN_MIB=12000 --test_timeout=3600
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile

# What is measured in steps of the longest path; spin says if it was too short.
_MAX_DEPTH = 1000000
_MAX_MIB = 2048

# Whatever of this is printed, not all states were visited, or not exactly.
_INCOMPLETE = re.compile(
    r"max search depth too small|Search not completed|out of memory|"
    r"pan: reached -DMEMLIM|VECTORSZ|aborting|pan: (?:error|.*exceed)", re.I)


def main():
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("model")
  parser.add_argument("-D", action="append", default=[], dest="definitions")
  parser.add_argument("--include", action="append", default=[], metavar="FILE")
  parser.add_argument("--expect", metavar="ASSERTION")
  options = parser.parse_args()
  for tool, package in (("spin", "spin"), ("gcc", "gcc")):
    if not shutil.which(tool):
      sys.exit("%s is not installed: run tools/setup, or install the package "
               "%s (its Debian name)" % (tool, package))
  definitions = _definitions(options.definitions)
  print("%s %s" % (options.model, " ".join(definitions)))
  with tempfile.TemporaryDirectory(dir=os.environ.get("TEST_TMPDIR")) as folder:
    # spin writes beside its input.
    for source in [options.model] + options.include:
      shutil.copy(source, folder)
    _run(folder, "spin", "-a", *definitions, os.path.basename(options.model))
    # -DCOLLAPSE stores states compressed, but all of each: nothing is hashed
    # away. -DSAFETY: no cycles are looked for.
    _run(folder, "gcc", "-O2", "-w", "-DSAFETY", "-DCOLLAPSE",
         "-DVECTORSZ=2048",
         "-DMEMLIM=%s" % os.environ.get("PARLEY_SPIN_MIB", _MAX_MIB), "-o",
         "pan", "pan.c")
    report = _run(folder, "./pan", "-m%d" % _MAX_DEPTH, "-w24", check=False)
    with open(folder + "/pan.m") as transitions:
      model = transitions.read()
    found = re.search(r"pan:\d+: (.*?) \(at depth", report)
    found = found and found.group(1)
    trail = _run(folder, "./pan", "-r", check=False) if found else ""
  for line in report.splitlines():
    if re.search(r"errors:|states, stored|total actual|elapsed", line):
      print(line.strip())
  if options.expect:
    _check_flaw(options.expect, found, report)
  else:
    _check_clean(found, model, report, trail)


def _definitions(given):
  """The definitions of the command line and of PARLEY_SPIN, which has priority,
  as arguments."""
  values = {}
  for definition in given + [
      word[len("-D"):] for word in os.environ.get("PARLEY_SPIN", "").split()]:
    name, _, value = definition.partition("=")
    values[name] = value or "1"
  return ["-D%s=%s" % item for item in sorted(values.items())]


def _run(folder, *command, check=True):
  done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL,
                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                        text=True, errors="replace")
  if done.returncode != 0 and check:
    sys.exit("%s exited with %d:\n%s" % (" ".join(command), done.returncode,
                                         done.stdout))
  return done.stdout


def _check_clean(found, model, report, trail):
  if found:
    print(trail)
    sys.exit("FAILED: %s; the steps to it are above" % found)
  incomplete = _INCOMPLETE.search(report)
  if incomplete or "errors: 0" not in report:
    sys.exit("FAILED: not all states were visited:\n%s" % report)
  missed = set(_met(model)) - set(_met(report))
  if missed:
    sys.exit("FAILED: these never happened, so the checks of them are of "
             "nothing: %s" % ", ".join(sorted(missed)))


def _met(text):
  """What a model says MEET of, in its code and in what it prints."""
  return re.findall(r'met: (?:" ")?(\w+)', text)


def _check_flaw(expected, found, report):
  if not found:
    sys.exit("FAILED: the flaw was not found:\n%s" % report)
  if "assertion violated" not in found or expected not in found:
    sys.exit("FAILED: the flaw was found by another check than %s: %s" %
             (expected, found))
  print("found: " + found)


if __name__ == "__main__":
  main()

"""Checks the layers of the tree that is being built; see layers.py."""

import os
import sys

from tools.lint import layers


def main():
  # In the runfiles is a link to the WORKSPACE of the real tree.
  workspace = os.path.join(os.environ["TEST_SRCDIR"],
                           os.environ["TEST_WORKSPACE"], "WORKSPACE")
  root = os.path.dirname(os.path.realpath(workspace))
  if not os.path.exists(os.path.join(root, "tools/lint/layers.py")):
    print("cannot find the source tree: %s is a copy" % workspace)
    return 1
  return layers.main([root])


if __name__ == "__main__":
  sys.exit(main())

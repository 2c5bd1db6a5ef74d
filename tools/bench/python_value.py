"""How fast Python's multiprocessing.Value is; a part of shm_bench.

Usage: python_value.py load|store MILLISECONDS

Prints operations per second of one process, with the Value's own lock.
"""

import multiprocessing
import sys
import time


def main():
  operation, milliseconds = sys.argv[1], float(sys.argv[2])
  value = multiprocessing.Value("q", 7)
  end = time.monotonic() + milliseconds / 1000
  begin = time.monotonic()
  done = 0
  while time.monotonic() < end:
    if operation == "load":
      for _ in range(1000):
        value.value  # pylint: disable=pointless-statement
    else:
      for _ in range(1000):
        value.value = 7
    done += 1000
  print(done / (time.monotonic() - begin))


if __name__ == "__main__":
  main()

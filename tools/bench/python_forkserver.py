"""How fast Python's multiprocessing starts processes; a part of process_bench.

Usage: python_forkserver.py forkserver|fork|pool MILLISECONDS

Prints how many are started a second, with the end of each, and the median of
the nanoseconds from start to the first byte that the child writes. With "pool":
tasks a second, and 0.
"""

import concurrent.futures
import multiprocessing
import os
import statistics
import sys
import time


def _write(connection):
  os.write(connection.fileno(), b"x")


def _measure_starts(method, seconds):
  context = multiprocessing.get_context(method)
  if method == "forkserver":
    # So that a child need not import this file anew.
    context.set_forkserver_preload(["__main__"])
  times = []
  begin = None
  rounds = 0
  while begin is None or time.perf_counter() - begin < seconds:
    ours, theirs = multiprocessing.Pipe(duplex=False)
    start = time.perf_counter_ns()
    child = context.Process(target=_write, args=(theirs,))
    child.start()
    os.read(ours.fileno(), 1)
    times.append(time.perf_counter_ns() - start)
    child.join()
    ours.close()
    theirs.close()
    if begin is None:
      # The first one has started the server.
      begin = time.perf_counter()
      times = []
    else:
      rounds += 1
  return rounds / (time.perf_counter() - begin), statistics.median(times)


def _same(x):
  return x


def _measure_pool(seconds):
  inputs = [b"x" * 64] * 1000
  with concurrent.futures.ProcessPoolExecutor(2) as pool:
    list(pool.map(_same, inputs))
    begin = time.perf_counter()
    tasks = 0
    while time.perf_counter() - begin < seconds:
      tasks += len(list(pool.map(_same, inputs)))
    return tasks / (time.perf_counter() - begin), 0


def main():
  method = sys.argv[1]
  seconds = float(sys.argv[2]) / 1000
  if method == "pool":
    print("%f %f" % _measure_pool(seconds))
  else:
    print("%f %f" % _measure_starts(method, seconds))


if __name__ == "__main__":
  main()

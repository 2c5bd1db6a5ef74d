"""How fast a round trip over Python's multiprocessing.Pipe is; a part of
pipe_bench.

Usage: python_connection.py BYTES ONE_CPU MILLISECONDS

Prints the median time of a round trip in nanoseconds. ONE_CPU is 1 if both
processes are to share a CPU.
"""

import multiprocessing
import os
import statistics
import sys
import time


def echo(connection, cpu):
  os.sched_setaffinity(0, {cpu})
  while True:
    connection.send_bytes(connection.recv_bytes())


def main():
  size, one_cpu, milliseconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
  cpus = sorted(os.sched_getaffinity(0))
  here, there = multiprocessing.Pipe()
  child = multiprocessing.Process(
      target=echo, args=(there, cpus[0 if one_cpu else 1 % len(cpus)]), daemon=True)
  child.start()
  os.sched_setaffinity(0, {cpus[0]})
  message = bytes(size)
  trips = []
  end = time.monotonic() + milliseconds / 1000
  while time.monotonic() < end:
    start = time.perf_counter_ns()
    here.send_bytes(message)
    here.recv_bytes()
    trips.append(time.perf_counter_ns() - start)
  print(statistics.median(trips))
  child.kill()
  child.join()


if __name__ == "__main__":
  main()

"""How fast a round trip over Python's multiprocessing.Pipe is; a part of
pipe_bench.

Usage: python_connection.py BYTES SOCKETS ONE_CPU MILLISECONDS

Every byte of a message is written and read, as by all that it is compared with.
Prints the median time of a round trip in nanoseconds. SOCKETS is 1 for a pair
of sockets, 0 for two pipes; ONE_CPU is 1 if both processes are to share a CPU.
"""

import multiprocessing
import os
import statistics
import sys
import time


def send(sink, size):
  sink.send_bytes(b"x" * size)


def receive(source):
  source.recv_bytes().find(b"y")


def echo(source, sink, size, cpu):
  os.sched_setaffinity(0, {cpu})
  while True:
    receive(source)
    send(sink, size)


def main():
  size, sockets, one_cpu = (int(word) for word in sys.argv[1:4])
  milliseconds = float(sys.argv[4])
  cpus = sorted(os.sched_getaffinity(0))
  if sockets:
    here, there = multiprocessing.Pipe()
    sink, source = here, here
    far_source, far_sink = there, there
  else:
    far_source, sink = multiprocessing.Pipe(duplex=False)
    source, far_sink = multiprocessing.Pipe(duplex=False)
  child = multiprocessing.Process(
      target=echo,
      args=(far_source, far_sink, size, cpus[0 if one_cpu else 1 % len(cpus)]),
      daemon=True)
  child.start()
  os.sched_setaffinity(0, {cpus[0]})
  trips = []
  end = time.monotonic() + milliseconds / 1000
  while time.monotonic() < end:
    start = time.perf_counter_ns()
    send(sink, size)
    receive(source)
    trips.append(time.perf_counter_ns() - start)
  print(statistics.median(trips))
  child.kill()
  child.join()


if __name__ == "__main__":
  main()

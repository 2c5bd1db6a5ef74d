"""How fast Python's multiprocessing.Queue is; a part of mqueue_bench.

Usage: python_queue.py SENDERS RECEIVERS BYTES MILLISECONDS

Prints messages per second.
"""

import multiprocessing
import os
import sys
import time


def _pin(i):
  cpus = sorted(os.sched_getaffinity(0))
  os.sched_setaffinity(0, {cpus[i % len(cpus)]})


def _send(i, queue, size):
  _pin(i)
  message = b"m" * size
  while True:
    queue.put(message)


def _receive(i, queue, counts, k):
  _pin(i)
  while True:
    queue.get()
    counts[k] += 1


def main():
  senders, receivers, size = (int(word) for word in sys.argv[1:4])
  milliseconds = float(sys.argv[4])
  context = multiprocessing.get_context("fork")
  queue = context.Queue(1024)
  counts = context.RawArray("Q", receivers)
  processes = [
      context.Process(target=_send, args=(i, queue, size), daemon=True)
      for i in range(senders)
  ] + [
      context.Process(target=_receive, args=(senders + k, queue, counts, k),
                      daemon=True)
      for k in range(receivers)
  ]
  for process in processes:
    process.start()
  while sum(counts) < 1000:
    time.sleep(0.01)
  begin, before = time.monotonic(), sum(counts)
  time.sleep(milliseconds / 1000)
  rate = (sum(counts) - before) / (time.monotonic() - begin)
  print("%.0f" % rate)
  for process in processes:
    process.kill()
    process.join()


if __name__ == "__main__":
  main()

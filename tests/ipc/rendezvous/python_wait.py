"""The Python side of python_wait_test: waits for descriptors that it inherited.

Usage: python_wait.py FD...

Prints "none" if none of them is ready, and then the place of each in the list,
one a line, as multiprocessing.connection.wait finds it ready.
"""

import sys
from multiprocessing.connection import wait


def main():
    fds = [int(argument) for argument in sys.argv[1:]]
    left = list(fds)
    print("none" if not wait(left, timeout=0) else "some", flush=True)
    while left:
        for fd in wait(left):
            print(fds.index(fd), flush=True)
            left.remove(fd)


if __name__ == "__main__":
    main()

"""Runs each program of the article in Python and in C++ and shows both outputs.

Exits with 1 unless they are equal.
"""

import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
TIMEOUT_SECONDS = 60


def output_of(*command):
    return subprocess.run(command,
                          check=True,
                          stdout=subprocess.PIPE,
                          text=True,
                          timeout=TIMEOUT_SECONDS).stdout


def main():
    are_equal = True
    for program in ("pipe", "shared_memory", "message_queue"):
        python = output_of("python3", str(HERE / f"{program}.py"))
        cpp = output_of(str(HERE / program))
        for language, output in (("Python", python), ("C++", cpp)):
            for line in output.splitlines():
                print(f"{program:13} {language:6} | {line}")
        if python != cpp or not cpp:
            print(f"{program}: the outputs differ")
            are_equal = False
    return 0 if are_equal else 1


if __name__ == "__main__":
    sys.exit(main())

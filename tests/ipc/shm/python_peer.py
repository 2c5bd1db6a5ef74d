"""The Python side of shared_memory_test and shareable_list_test: what a user's
own script would do.

Usage: python_peer.py ROLE NAME...

It says "ready" in a line of stdout, and hears a line of stdin as the signal to
go on. An uncaught exception is exit status 1, which the test sees.
"""

import sys
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import ShareableList, SharedMemory

# As AllKinds() in shareable_list_test.cc.
ITEMS = [
    "howdy", b"HoWdY", -273.154, 100, None, True, 42,
    "", b"", b"a\0b", "a\0b", False, -2**63, 2**63 - 1, float("inf"), -0.0,
    "\u00e4\u20ac\U0001f600!!!!!", "12345678", b"\xff" * 100,
]


def say(text):
    print(text, flush=True)


def hear():
    if not sys.stdin.readline():
        raise EOFError("the test has gone")


def only_attached(memory):
    """Else this process would unlink it when it ends."""
    resource_tracker.unregister("/" + memory.name, "shared_memory")


def memory_attach(name):
    """Attaches to memory of the test as one should, and writes."""
    memory = SharedMemory(name)
    only_attached(memory)
    assert memory.name == name
    assert memory.size == 512 == len(memory.buf), memory
    assert bytes(memory.buf[:3]) == b"C++" and memory.buf[511] == 42
    memory.buf[:5] = b"howdy"
    memory.close()


def memory_attach_and_end(name):
    """Attaches to memory of the test as many do."""
    memory = SharedMemory(name)
    memory.buf[:5] = b"howdy"
    memory.close()


def memory_unlink(name):
    memory = SharedMemory(name)
    memory.unlink()
    memory.close()


def memory_refuses_to_create(name):
    try:
        SharedMemory(name, create=True, size=512)
    except FileExistsError:
        return
    raise AssertionError("created it over the test's")


def memory_is_not_there(name):
    try:
        SharedMemory(name)
    except FileNotFoundError:
        return
    raise AssertionError("it is there")


def memory_create(name):
    memory = SharedMemory(name, create=True, size=100000)
    memory.buf[:5] = b"howdy"
    say("ready")
    hear()
    assert bytes(memory.buf[:5]) == b"HELLO" and memory.buf[99999] == 42
    memory.close()
    memory.unlink()


def memory_create_random():
    memory = SharedMemory(create=True, size=10)
    say(memory.name)
    hear()
    memory.close()
    memory.unlink()


def check_items(found, expected):
    found = list(found)
    assert found == expected, found
    assert [type(item) for item in found] == [type(item) for item in expected]


def list_read(name):
    """Reads a list of the test's, which checks in turn what is set in it.

    Its last item is one that Python itself would cut, see list_cut.
    """
    shared = ShareableList(name=name)
    only_attached(shared.shm)
    check_items(shared, ITEMS + ["\u00e9" * 7])
    assert shared.format.startswith("8s8sdqxxxxxx?xxxxxxxx?q"), shared.format
    shared[0] = "encod\u00e9s"
    shared[1] = None
    shared[2] = 1
    shared[3] = 0.5
    shared[4] = "some"
    shared[5] = b"bytes"
    shared[6] = False
    shared.shm.close()


def list_create(name):
    """Creates a list in which the test then sets items."""
    shared = ShareableList(ITEMS, name=name)
    say("ready")
    hear()
    expected = ["encod\u00e9s", None, 1, 0.5, "some", b"bytes", False]
    check_items([shared[i] for i in range(7)], expected)
    assert shared.format.startswith("8sxxxxxx?xqd8s8sxxxxxxx?"), shared.format
    shared.shm.close()
    shared.shm.unlink()


def list_empty(ours, tests):
    """An empty list of ours and one of the test's."""
    other = ShareableList(name=tests)
    only_attached(other.shm)
    assert len(other) == 0 and not list(other)
    other.shm.close()
    shared = ShareableList([], name=ours)
    say("ready")
    hear()
    shared.shm.close()
    shared.shm.unlink()


def list_cut(name):
    """Python makes room for characters, where it needs it for bytes."""
    shared = ShareableList(["\u00e9" * 7, "a" + "\u00e9" * 6], name=name)
    assert shared.format == "8s8s"
    assert shared[0] == "\u00e9" * 4
    try:
        shared[1]
    except UnicodeDecodeError:
        pass
    else:
        raise AssertionError("Python has read half a character")
    say("ready")
    hear()
    assert shared[1] == "whole"
    shared.shm.close()
    shared.shm.unlink()


def list_attach_and_end(name):
    """Attaches to a list of the test's as many do."""
    shared = ShareableList(name=name)
    shared[0] = "seen"
    shared.shm.close()


def main():
    role, names = sys.argv[1], sys.argv[2:]
    roles = (
        memory_attach, memory_attach_and_end, memory_unlink,
        memory_refuses_to_create, memory_is_not_there, memory_create,
        memory_create_random, list_read, list_create, list_empty, list_cut,
        list_attach_and_end,
    )
    {f.__name__: f for f in roles}[role](*names)


if __name__ == "__main__":
    main()

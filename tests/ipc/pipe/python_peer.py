"""The Python side of python_peer_test: what a user's own script would do.

Usage: python_peer.py ROLE RECEIVE_FD SEND_FD, where both descriptors are the
same for a socket, and -1 if there is none. An uncaught exception is exit status
1, which the test sees.
"""

import os
import signal
import sys
from multiprocessing import reduction
from multiprocessing.connection import Connection, wait

HUGE_PART = bytes(range(256))


def pattern(size):
    return bytes((i * 31 + i // 251) & 0xFF for i in range(size))


def echo(receiver, sender):
    """Sends back every message, until the end of the stream."""
    while True:
        try:
            message = receiver.recv_bytes()
        except EOFError:
            return
        sender.send_bytes(message)


def send(receiver, sender):
    """Sends one message of each size."""
    del receiver
    for size in (0, 1, 16384, 16385, 1 << 20):
        sender.send_bytes(pattern(size))


def receive(receiver, sender):
    """Receives one message of each size, and then the end."""
    del sender
    for size in (0, 1, 16384, 16385, 1 << 20):
        assert receiver.poll(None)
        message = receiver.recv_bytes()
        assert message == pattern(size), (size, len(message))
    assert receiver.poll(None)
    try:
        receiver.recv_bytes()
    except EOFError:
        return
    raise AssertionError("no end of the stream")


def receive_truncated(receiver, sender):
    """Expects that the stream ends inside a message."""
    del sender
    try:
        receiver.recv_bytes()
    except EOFError:
        raise AssertionError("a truncated message looks like a clean end")
    except OSError as error:
        assert str(error) == "got end of file during message", error
        return
    raise AssertionError("a truncated message was received")


def wait_ready(receiver, sender):
    """Waits for what is not there yet, for a message, and for the end."""
    assert wait([receiver], 0) == []
    sender.send_bytes(b"waiting")
    assert wait([receiver]) == [receiver]
    assert receiver.recv_bytes() == b"message"
    assert wait([receiver]) == [receiver]
    try:
        receiver.recv_bytes()
    except EOFError:
        return
    raise AssertionError("no end of the stream")


def pass_handles(receiver, sender):
    """Receives a descriptor, writes to it, and sends one that can be read."""
    handle = reduction.recv_handle(receiver)
    os.write(handle, b"from Python")
    os.close(handle)
    reader, writer = os.pipe()
    reduction.send_handle(sender, reader, os.getppid())
    os.close(reader)
    os.write(writer, b"to C++")


def receive_huge(receiver, sender):
    """Receives a message that needs the long header, and says what it was."""
    message = receiver.recv_bytes()
    same = message == HUGE_PART * (len(message) // len(HUGE_PART))
    sender.send_bytes(b"%d %s" % (len(message), b"same" if same else b"other"))


def send_huge(receiver, sender):
    """Sends a message that needs the long header."""
    del receiver
    sender.send_bytes(HUGE_PART * ((1 << 23) + 1))


def die_inside(receiver, sender):
    """Is killed with a message sent in part."""
    del receiver
    sender.send_bytes(b"whole")
    os.write(sender.fileno(), (1000).to_bytes(4, "big") + b"x" * 100)
    os.kill(os.getpid(), signal.SIGKILL)


def main():
    role, receive_fd, send_fd = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    if receive_fd == send_fd:
        receiver = sender = Connection(receive_fd)
    else:
        receiver = Connection(receive_fd, writable=False) if receive_fd >= 0 else None
        sender = Connection(send_fd, readable=False) if send_fd >= 0 else None
    roles = {f.__name__: f for f in (
        echo, send, receive, receive_truncated, wait_ready, pass_handles, receive_huge,
        send_huge, die_inside)}
    roles[role](receiver, sender)


if __name__ == "__main__":
    main()

"""The Python side of python_peer_test: what a user's own script would do.

Usage: python_peer.py ROLE ADDRESS KEY [modern | STDLIB.zip]

ADDRESS is a path, "@name" for an abstract one, or "host:port"; KEY is empty for
none. With `modern`, a Python before 3.12 authenticates as 3.12 and later do, by
the functions below; with a zip file of a newer Python's library, by that one's
multiprocessing.connection. An uncaught exception is exit status 1, which the
test sees.
"""

import hmac
import importlib.util
import multiprocessing
import os
import sys
import zipfile
from multiprocessing import AuthenticationError


def load_connection(stdlib):
    """multiprocessing.connection of another Python's library; any, of ours."""
    spec = importlib.util.find_spec("multiprocessing.connection")
    module = importlib.util.module_from_spec(spec)
    multiprocessing.connection = sys.modules[spec.name] = module
    if stdlib is None:
        spec.loader.exec_module(module)
    else:
        name = "multiprocessing/connection.py"
        with zipfile.ZipFile(stdlib) as archive:
            source = archive.read(name)
        exec(compile(source, f"{stdlib}/{name}", "exec"), vars(module))
        # What the test is about: that this is the newer protocol.
        assert module.MESSAGE_LENGTH > 20, module.MESSAGE_LENGTH
    return module


mpc = load_connection(next((a for a in sys.argv[4:] if a.endswith(".zip")), None))


# What 3.12 does, from the description in its documentation of the protocol:
# the digest is named before the challenge and before the response.
def modern_deliver_challenge(connection, key):
    challenge = b"{sha256}" + os.urandom(40)
    connection.send_bytes(b"#CHALLENGE#" + challenge)
    response = connection.recv_bytes(256)
    expected = b"{sha256}" + hmac.new(key, challenge, "sha256").digest()
    if not hmac.compare_digest(response, expected):
        connection.send_bytes(b"#FAILURE#")
        raise AuthenticationError("digest received was wrong")
    connection.send_bytes(b"#WELCOME#")


def modern_answer_challenge(connection, key):
    message = connection.recv_bytes(256)
    assert message.startswith(b"#CHALLENGE#{sha256}"), message
    challenge = message[len(b"#CHALLENGE#"):]
    mac = hmac.new(key, challenge, "sha256").digest()
    connection.send_bytes(b"{sha256}" + mac)
    if connection.recv_bytes(256) != b"#WELCOME#":
        raise AuthenticationError("digest sent was rejected")


def client(address, key):
    """Connects, sends and receives."""
    with mpc.Client(address, authkey=key) as connection:
        connection.send_bytes(b"from Python")
        assert connection.recv_bytes() == b"from C++"


def rejected_client(address, key):
    """Connects and is found to have the wrong key, or finds it."""
    try:
        mpc.Client(address, authkey=key)
    except AuthenticationError:
        return
    raise AssertionError("accepted")


def listener(address, key):
    """Accepts one and talks with it. Says where it listens first."""
    with mpc.Listener(address, authkey=key) as here:
        say_where(here)
        with here.accept() as connection:
            connection.send_bytes(b"from Python")
            assert connection.recv_bytes() == b"from C++"


def rejecting_listener(address, key):
    """Accepts one that turns out to have the wrong key."""
    with mpc.Listener(address, authkey=key) as here:
        say_where(here)
        try:
            here.accept()
        except (AuthenticationError, EOFError, ConnectionResetError):
            return
    raise AssertionError("accepted")


def say_where(here):
    address = here.address
    print(address[1] if isinstance(address, tuple) else "there", flush=True)


def main():
    role, address, key = sys.argv[1:4]
    if "modern" in sys.argv[4:] and sys.version_info < (3, 12):
        mpc.deliver_challenge = modern_deliver_challenge
        mpc.answer_challenge = modern_answer_challenge
    if address.startswith("@"):
        address = "\0" + address[1:]
    elif not address.startswith("/"):
        host, port = address.rsplit(":", 1)
        address = (host, int(port))
    roles = {f.__name__: f for f in (client, rejected_client, listener, rejecting_listener)}
    roles[role](address, key.encode() or None)


if __name__ == "__main__":
    main()

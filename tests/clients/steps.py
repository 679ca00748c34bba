"""What the Python clients share: the environment and the lines that run.sh counts."""

import os
import sys

HOST = os.environ["HOST"]
PORT = int(os.environ["PORT"])
TYPED = os.environ["TYPED"] == "1"

# An index of 1,200 members, as a body.
MEMBERS = 1200
BODY = "\n".join(str(600000 + n) for n in range(MEMBERS))


def ok(what):
    print("ok", what, flush=True)


def same(what, found, expected):
    if found != expected:
        print(f"not ok {what}: expected {expected!r:.300}, found {found!r:.300}")
        sys.exit(1)


def raises(what, error, call):
    try:
        result = call()
    except error:
        return
    print(f"not ok {what}: no error but {result!r}")
    sys.exit(1)


def every_method(of, called, local=""):
    """Each public method of a client is in one of the two lists: those that its script calls, and
    those that send nothing. A new version of the client may have more."""
    kind = type(of)
    public = {it for it in dir(kind) if not it.startswith("_") and callable(getattr(kind, it))}
    same("methods that the script does not know", public - {*called.split(), *local.split()}, set())
    same("methods that are not there", {*called.split(), *local.split()} - public, set())


def text(value):
    """Clients give bytes, text or a number; the wire has text."""
    return value.decode() if isinstance(value, bytes) else str(value)

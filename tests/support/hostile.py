"""Hostile inputs: odd words and numbers, spoiled JSON and files, and a time limit."""

import contextlib
import copy
import signal

import pytest

NUMBERS = [
    0, -1, 1, 1.0, 1.5, -0.0, 1e308, -1e308, 1e39, 1e-320, 10**30, -(10**30), 2**63, 2**31 - 1,
    True, None, "", "1", "../../x", "a[/b]", "\x1b[2J", [], [[]], {}, {"a": 1}, [1e308],
]  # fmt: skip
WORDS = [
    "", " ", ".", "..", "../..", "/", "-", "--", "nan", "inf", "-inf", "1e309", "1e-320", "-1", "0",
    "0x10", "1,2", "99999999999999999999", "9" * 500, "x" * 5000, "a[/b]", "snu[red]", "\x1b[31m",
    "a\0b", "pcm.json", "=1+1", "é\u202e", "\ud800", "/dev/null", "/proc/self/mem", "%s%n", "~",
]  # fmt: skip


def cases(kinds, slow):
    """Parameters "kind" and "number": of each kind the first (default run), or the rest (slow)."""
    return [
        pytest.param(kind, number, id=f"{kind}-{number}")
        for kind, (quick, every) in kinds.items()
        for number in (range(quick, every) if slow else range(quick))
    ]


def names(data, path=()):
    """The paths of all values in JSON data."""
    items = data.items() if isinstance(data, dict) else enumerate(data)
    for key, value in items:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from names(value, (*path, key))


def spoiled(data, draw):
    """JSON data with one to three values exchanged, taken away or added."""
    data = copy.deepcopy(data)
    for _ in range(draw.randint(1, 3)):
        paths = list(names(data))
        if not paths:
            break
        path = draw.choice(paths)
        at = data
        for key in path[:-1]:
            at = at[key]
        action = draw.randrange(5)
        if action == 0:
            del at[path[-1]]
        elif action == 1 and isinstance(at, dict):
            at[draw.choice(WORDS[:20])] = copy.deepcopy(draw.choice(NUMBERS))
        elif action == 1:
            at.append(copy.deepcopy(draw.choice(NUMBERS)))
        else:
            at[path[-1]] = copy.deepcopy(draw.choice(NUMBERS))
    return data


def spoiled_bytes(data, draw):
    """A file that is cut off, longer, or has other bytes at some places."""
    data = bytearray(data)
    action = draw.randrange(4)
    if action == 0:
        return bytes(data[: draw.randrange(len(data))])
    if action == 1:
        return bytes(data) + draw.randbytes(draw.randrange(1, 100))
    if action == 2:
        return draw.randbytes(draw.randrange(200))
    for _ in range(draw.randint(1, 20)):
        data[draw.randrange(len(data))] = draw.randrange(256)
    return bytes(data)


@contextlib.contextmanager
def limited(seconds):
    """Ends what hangs."""

    def stop(number, frame):
        raise AssertionError(f"it still runs after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)

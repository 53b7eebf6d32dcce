"""A page in headless Chromium, looked into by its DevTools protocol; and a server of a folder."""

import base64
import contextlib
import functools
import http.server
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--mute-audio",
    "--autoplay-policy=no-user-gesture-required",
    "--remote-debugging-pipe",
)

# Chromium reads commands from descriptor 3 and writes answers to 4.
_WITH_PIPES = """
import os, sys
given, taken = (os.dup(int(number)) for number in sys.argv[1:3])
given, taken = (os.dup(fd) if fd in (3, 4) else fd for fd in (given, taken))
os.dup2(given, 3), os.dup2(taken, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


def chromium():
    """Return the path of Chromium; skip the test where there is none."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("needs chromium (Debian's package of that name)")
    return found


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@contextlib.contextmanager
def served(folder):
    """Serve a folder on this machine; give its address."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()


class Page:
    """A tab of a Chromium of its own, which ends with the block.

    Args:
        width, height: Of the window in CSS pixels.
    """

    def __init__(self, width=1280, height=1000):
        self.messages, self._number, self._buffer = [], 0, b""
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        self._in, self._out = ours_in, ours_out
        self._process = subprocess.Popen(
            [sys.executable, "-c", _WITH_PIPES, str(theirs_in), str(theirs_out), chromium(),
             *_FLAGS, f"--user-data-dir={self._folder.name}/profile", "about:blank"],
            pass_fds=(theirs_in, theirs_out), stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        self._session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.resize(width, height)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        with contextlib.suppress(Exception):
            self.call("Browser.close", 5)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        self._process.kill()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)
        self._folder.cleanup()

    def resize(self, width, height=1000):
        """Give the page another size."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=width < 600)  # fmt: skip

    def call(self, method, timeout=60, **parameters):
        """Call a method of the protocol; return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + timeout
        while True:
            answer = self._read(end)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self._note(answer)

    def _note(self, answer):
        """Keep what the page complains of."""
        given = answer.get("params", {})
        if answer.get("method") == "Runtime.consoleAPICalled" and given["type"] == "error":
            said = [str(a.get("value", a.get("description"))) for a in given["args"]]
            self.messages.append(" ".join(said))
        elif answer.get("method") == "Runtime.exceptionThrown":
            self.messages.append(str(given["exceptionDetails"])[:500])
        elif answer.get("method") == "Log.entryAdded" and given["entry"]["level"] == "error":
            self.messages.append(given["entry"]["text"] + " " + given["entry"].get("url", ""))

    def _read(self, end):
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], max(0, end - time.monotonic()))
            part = os.read(self._in, 1 << 20) if ready else b""
            if not part:
                raise TimeoutError(f"Chromium said nothing; so far: {self.messages}")
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def open(self, address):
        """Go to an address, and wait until it is loaded."""
        self.call("Page.navigate", url=address)
        self.wait("document.readyState === 'complete'")

    def value(self, expression, timeout=60):
        """Return what an expression of JavaScript, or its promise, gives."""
        result = self.call("Runtime.evaluate", timeout, expression=expression, awaitPromise=True,
                           returnByValue=True)  # fmt: skip
        if "exceptionDetails" in result:
            raise RuntimeError(str(result["exceptionDetails"])[:1000])
        return result["result"].get("value")

    def wait(self, expression, timeout=60):
        """Wait until an expression is true."""
        end = time.monotonic() + timeout
        while not self.value(f"Boolean({expression})"):
            if time.monotonic() > end:
                raise TimeoutError(f"{expression} is not true; the page said {self.messages}")
            time.sleep(0.05)

    def picture(self, path, whole=True):
        """Save what the page looks like."""
        data = self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        Path(path).write_bytes(base64.b64decode(data))

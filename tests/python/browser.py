"""Debian's Chromium without a window, spoken to by its DevTools protocol over two pipes."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser")
PATIENCE = 60  # seconds

# Starts a program with two descriptors as 3 and 4, where Chromium looks for the protocol's pipes.
STARTER = """
import fcntl, os, sys
pipes = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3]]
for place, pipe in enumerate(pipes, 3):
    os.dup2(pipe, place)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Browser:
    """One page, in a context manager."""

    def __init__(self, folder):
        """folder: an empty one, for its profile."""
        self._commands, self._answers, self._number, self._rest = None, None, 0, b""
        self._folder = folder

    def __enter__(self):
        to_read, self._commands = os.pipe()
        self._answers, to_write = os.pipe()
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-c", STARTER, str(to_read), str(to_write), PROGRAM),
                *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
                *(f"--user-data-dir={self._folder}", "--remote-debugging-pipe", "about:blank"),
            ],
            pass_fds=(to_read, to_write),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(to_write)
        os.set_blocking(self._answers, False)
        self._session = None
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(one["targetId"] for one in targets if one["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=page, flatten=True)
        self._session = attached["sessionId"]
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            os.close(self._commands)
        self._process.terminate()
        self._process.wait(PATIENCE)
        os.close(self._answers)

    def call(self, method, **parameters):
        """A command of the protocol; returns its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            while b"\0" in self._rest:
                text, self._rest = self._rest.split(b"\0", 1)
                answer = json.loads(text)
                if answer.get("id") == self._number:
                    assert "error" not in answer, answer["error"]
                    return answer["result"]
            try:
                found = os.read(self._answers, 1 << 20)
            except BlockingIOError:
                time.sleep(0.02)
                continue
            assert found, "Chromium has ended"
            self._rest += found
        raise TimeoutError(method)

    def open(self, url, width=1180, height=844):
        """Loads a page in a window of that many CSS pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 700,
        )
        self.call("Page.navigate", url=str(url))
        until = time.monotonic() + PATIENCE
        while self.evaluate("document.readyState + location.href") == "completeabout:blank" or (
            self.evaluate("document.readyState") != "complete"
        ):
            assert time.monotonic() < until, url
            time.sleep(0.05)

    def evaluate(self, expression):
        """The value of a JavaScript expression, a promise's too."""
        found = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def press(self, key, code):
        for kind in ("rawKeyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code
            )

    def screenshot(self, path):
        """The whole page as PNG."""
        found = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))

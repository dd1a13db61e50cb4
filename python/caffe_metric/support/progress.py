"""A line that tells how far long work is: on a terminal only, quiet in a pipe."""

from __future__ import annotations

import shutil
import sys
import time


class Progress:
    """Rewrites one line of stderr. Use it as a context manager; the line goes away at its end."""

    def __init__(self, stream=None, every=0.1):
        self._stream = stream or sys.stderr
        self._shown = self._stream.isatty()
        self._every, self._last = every, float("-inf")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.clear()

    def show(self, text):
        """Shows the text, unless it changed less than a moment ago."""
        if not self._shown or time.monotonic() - self._last < self._every:
            return
        self._last = time.monotonic()
        width = shutil.get_terminal_size().columns - 1
        self._stream.write("\r\x1b[K" + text[:width])
        self._stream.flush()

    def clear(self):
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def each(self, items, text, total=None):
        """Yields the items, with `text` and a percentage on the line."""
        total = total or len(items)
        for done, item in enumerate(items):
            self.show(f"{text} {100 * done // max(1, total)}%")
            yield item

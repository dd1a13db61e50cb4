"""A wire with a delay, for two_hosts.sh where the kernel has no netem.

    python3 wire.py SECONDS ONE OTHER

Makes two network cards (TAP) of these names, says "ready", and carries each frame from one to the
other after so many seconds, until it is ended. Who moves the cards into namespaces has them there.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import sys
import time
from collections import deque

# linux/if_tun.h: _IOW('T', 202, int), and flags.
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
FRAME = 1 << 16
# So many frames wait at most; a card drops what is too much, as a real one does.
MOST = 4096


def card(name: str) -> int:
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TAP | IFF_NO_PI))
    return descriptor


def carry(seconds, one, other):
    """Never returns."""
    target = {one: other, other: one}
    waiting = deque()  # (when, card, frame), in the order of the times
    while True:
        timeout = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        for source in select.select([one, other], [], [], timeout)[0]:
            try:
                frame = os.read(source, FRAME)
            except OSError:  # a card that is down
                continue
            if len(waiting) < MOST:
                waiting.append((time.monotonic() + seconds, target[source], frame))
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, end, frame = waiting.popleft()
            try:
                os.write(end, frame)
            except OSError:
                continue


if __name__ == "__main__":
    cards = [card(name) for name in sys.argv[2:4]]
    print("ready", flush=True)
    carry(float(sys.argv[1]), *cards)

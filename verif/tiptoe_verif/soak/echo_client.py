"""Many short connections to an echo server, so many at a time: HOST PORT COUNT AT_ONCE BYTES SEED
[together [CONNECTING [HOLD]]].

Each sends random bytes and compares what comes back; with ``together`` all AT_ONCE are connected, no more than CONNECTING of them
in their handshake at a time, and stay so for HOLD seconds before any sends. Prints one line of JSON: requests,
failed, their errors, and median, 99th percentile and longest time in milliseconds. A program of its own, of the standard
library only.
"""

import json
import os
import random
import selectors
import socket
import sys
import time
from collections import Counter

PATIENCE_S = 120.0
"""A request that takes longer has failed."""


class Request:
    """One connection."""

    def __init__(self, target: tuple[str, int], data: bytes, waits: bool) -> None:
        self.data, self.left, self.got = data, memoryview(data), bytearray()
        self.waits, self.connected = waits, False
        self.error = ""
        self.begin = time.monotonic()
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.connect_ex(target)

    @property
    def wanted(self) -> int:
        """Events to wait for."""
        if not self.connected or (self.left and not self.waits):
            return selectors.EVENT_READ | selectors.EVENT_WRITE
        return selectors.EVENT_READ

    def turn(self) -> bool:
        """Go on; whether it is over."""
        try:
            if not self.connected:
                if error := self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    raise OSError(error, os.strerror(error))
                try:
                    self.socket.getpeername()
                except OSError:
                    return False  # not yet
                self.connected = True
            if self.waits:
                return False
            try:
                while self.left:
                    self.left = self.left[self.socket.send(self.left) :]
                    if not self.left:
                        self.socket.shutdown(socket.SHUT_WR)
            except BlockingIOError:
                pass  # what came has to be taken nevertheless: the server may wait for that
            while part := self.socket.recv(65536):
                self.got += part
            self.error = "" if self.got == self.data else f"{len(self.got)} bytes back, or other ones"
            return True
        except BlockingIOError:
            return False
        except OSError as error:
            self.error = error.strerror or str(error)
            return True


def run(
    target: tuple[str, int], count: int, at_once: int, size: int, seed: int, together: int, hold_s: float
) -> dict[str, object]:
    """Make the requests; what became of them. ``together``: how many connect at a time, 0: each is on its own."""
    rng = random.Random(seed)
    ready = selectors.DefaultSelector()
    times: list[float] = []
    errors: Counter[str] = Counter()
    begun = 0
    live: set[Request] = set()

    def end(request: Request) -> None:
        ready.unregister(request.socket)
        request.socket.close()
        live.discard(request)
        times.append(time.monotonic() - request.begin)
        if request.error:
            errors[request.error] += 1

    looked = until = time.monotonic()
    while begun < count or live:
        connecting = sum(not each.connected for each in live) if together else -1
        while (
            begun < count
            and len(live) < at_once
            and (not together or begun % at_once or not live)
            and connecting < together
        ):
            request = Request(target, rng.randbytes(rng.randrange(1, 2 * size)), bool(together))
            connecting += bool(together)
            ready.register(request.socket, request.wanted, request)
            live.add(request)
            begun += 1
        if together and any(each.waits for each in live):
            now = time.monotonic()
            if not ((len(live) == at_once or begun == count) and all(each.connected for each in live)):
                until = now + hold_s
            elif now >= until:
                for request in live:
                    request.waits = False
        for key, _ in ready.select(1.0) if not together else [(key, 0) for key in list(ready.get_map().values())]:
            if key.data.turn():
                end(key.data)
            else:
                ready.modify(key.fileobj, key.data.wanted, key.data)
        if together:
            time.sleep(0.005)
        now = time.monotonic()
        if now > looked + 1:
            looked = now
            for request in [each for each in live if now > each.begin + PATIENCE_S]:
                request.error = "no end"
                end(request)
    times.sort()
    milliseconds = [round(1000 * times[int(part * (len(times) - 1))], 1) for part in (0.5, 0.99, 1)]
    named = dict(zip(("median_ms", "p99_ms", "max_ms"), milliseconds, strict=True))
    return {"requests": len(times), "failed": sum(errors.values()), "errors": errors} | named


if __name__ == "__main__":
    host, port, *numbers = sys.argv[1:6]
    count, at_once, size, seed = int(numbers[0]), int(numbers[1]), int(numbers[2]), int(sys.argv[6])
    together = int(sys.argv[8]) if sys.argv[8:] else at_once if sys.argv[7:] else 0
    hold_s = float(sys.argv[9]) if sys.argv[9:] else 0.0
    print(json.dumps(run((host, int(port)), count, at_once, size, seed, together, hold_s)))

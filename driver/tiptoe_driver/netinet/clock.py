"""Time: callouts (FreeBSD's kern_timeout.c), and the devices that time passes on.

One thread drives everything: ``poll`` handles what has happened, ``wait`` lets time pass until something does.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from typing import Protocol


class Pollable(Protocol):
    """A device that the stack drives."""

    def poll(self) -> bool:
        """Handle what the device has reported; whether there was anything."""

    def wait(self, timeout_us: int | None) -> bool:
        """Let time pass until the device reports something (handled before return), or the time is over."""

    def now_us(self) -> int:
        """The device's clock."""


class Callout:
    """A function to be called at a time; ``cancel`` it when no longer wanted."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[[], None]) -> None:
        self.function: Callable[[], None] | None = function

    def cancel(self) -> None:
        """Do not call it any more."""
        self.function = None


class Callouts(Protocol):
    """Who has callouts."""

    def now_us(self) -> int:
        """The time."""

    def callout(self, delay_us: int, function: Callable[[], None]) -> Callout:
        """Call ``function`` after ``delay_us``."""


class Deadline:
    """A time that moves, and a function to be called then. Moved to later it costs nothing: the one callout looks again.

    Attributes
    ----------
    due_us : int
        The time, once set.
    """

    __slots__ = ("_callout", "_clock", "_function", "_looks_us", "due_us")

    def __init__(self, clock: Callouts, function: Callable[[], None]) -> None:
        self._clock = clock
        self._function = function
        self._callout: Callout | None = None
        self._looks_us = 0
        self.due_us = 0

    @property
    def running(self) -> bool:
        """The function will be called."""
        return self._callout is not None

    def set(self, delay_us: int) -> None:
        """Call the function ``delay_us`` from now, and not when it was to be called before."""
        self.due_us = self._clock.now_us() + delay_us
        if self._callout is not None and self._looks_us > self.due_us:
            self.cancel()
        if self._callout is None:
            self._wait(delay_us)

    def cancel(self) -> None:
        """Do not call it."""
        if self._callout is not None:
            self._callout.cancel()
            self._callout = None

    def _wait(self, delay_us: int) -> None:
        self._looks_us = self.due_us
        self._callout = self._clock.callout(delay_us, self._look)

    def _look(self) -> None:
        self._callout = None
        left_us = self.due_us - self._clock.now_us()
        if left_us > 0:
            self._wait(left_us)
        else:
            self._function()


class Clock:
    """The time of one stack, on the clocks of the devices it drives."""

    CALLOUTS = 1024
    """Callouts that may be kept, cancelled ones too, before those are looked for and forgotten."""
    SLICE_US = 100
    """How long devices are waited for in turn when there are several."""

    def __init__(self) -> None:
        self.devices: list[Pollable] = []
        self._clocks: dict[Pollable, int] = {}  # stack's time less the device's
        self._now_us = 0  # when the last device went
        self._turn = 0
        self._callouts: list[tuple[int, int, Callout]] = []
        self._callout_order = count()
        self._most_callouts = self.CALLOUTS

    def attach_device(self, device: Pollable) -> None:
        """Drive ``device`` from now on. Its clock goes on from the stack's time; the first one's is the stack's."""
        if self.devices or self._now_us:
            self._clocks[device] = self.now_us() - device.now_us()
        else:
            self._clocks[device] = 0
        self.devices.append(device)

    def detach_device(self, device: Pollable) -> None:
        """Drive ``device`` no more. Time goes on with the next device's clock; without any it stands still."""
        self._now_us = self.now_us()
        self.devices.remove(device)
        del self._clocks[device]
        if self.devices:
            first = self.devices[0]
            self._clocks[first] = self._now_us - first.now_us()

    def now_us(self) -> int:
        """Microseconds on the first device's clock; never less than before when that device goes."""
        return self._time_of(self.devices[0]) if self.devices else self._now_us

    def _time_of(self, device: Pollable) -> int:
        """The stack's time by the clock of ``device``."""
        return device.now_us() + self._clocks[device]

    def callout(self, delay_us: int, function: Callable[[], None]) -> Callout:
        """Call ``function`` after ``delay_us``."""
        entry = Callout(function)
        if len(self._callouts) >= self._most_callouts:
            self._callouts = [each for each in self._callouts if each[2].function is not None]
            heapq.heapify(self._callouts)
            self._most_callouts = max(self.CALLOUTS, 2 * len(self._callouts))
        heapq.heappush(self._callouts, (self.now_us() + delay_us, next(self._callout_order), entry))
        return entry

    def poll(self) -> bool:
        """Handle everything that has happened; whether there was anything. Takes no time on the device's clock."""
        busy = False
        for device in list(self.devices):
            busy |= device.poll()
        return self._run_callouts() or busy

    def wait(self, timeout_us: int | None) -> bool:
        """Let time pass until something happened (and was handled) or the time is over; whether it did. May return
        early: the caller looks at what it waits for, as ``sleep`` does."""
        if self.poll():
            return True
        if not self.devices:
            raise RuntimeError("a stack without a device has no time")
        limit = self._time_left(timeout_us)
        if len(self.devices) == 1:
            happened = self.devices[0].wait(limit)
        else:
            happened = self._wait_in_turn(self.SLICE_US if limit is None else min(limit, self.SLICE_US))
        return self._run_callouts() or happened

    def _wait_in_turn(self, part_us: int) -> bool:
        """Wait for each device until ``part_us`` from now, another one first each time. Clocks that run only while
        waited for stay together: what is ahead waits for the one that is behind."""
        until = min(map(self._time_of, self.devices)) + part_us
        self._turn += 1
        first = self._turn % len(self.devices)
        happened = False
        for device in self.devices[first:] + self.devices[:first]:
            if device in self._clocks:  # not gone meanwhile
                happened |= device.wait(max(0, until - self._time_of(device)))
        return happened

    def sleep(self, condition: Callable[[], bool], timeout_us: int | None) -> bool:
        """Let time pass until ``condition`` holds or ``timeout_us`` is over; whether it holds."""
        if condition():
            return True
        deadline = None if timeout_us is None else self.now_us() + timeout_us
        while not condition():
            left = None if deadline is None else deadline - self.now_us()
            if left is not None and left <= 0:
                self.poll()
                return condition()
            self.wait(left)
        return True

    def _time_left(self, timeout_us: int | None) -> int | None:
        """Microseconds to the end of the timeout or to the next callout, whichever is sooner; None: neither exists."""
        while self._callouts and self._callouts[0][2].function is None:
            heapq.heappop(self._callouts)
        if not self._callouts:
            return timeout_us
        left = max(0, self._callouts[0][0] - self.now_us())
        return left if timeout_us is None else min(left, timeout_us)

    def _run_callouts(self) -> bool:
        """Call what is due; whether anything was."""
        if not self._callouts:
            return False
        now = self.now_us()
        ran = False
        while self._callouts and self._callouts[0][0] <= now:
            function = heapq.heappop(self._callouts)[2].function
            if function is not None:
                function()
                ran = True
        return ran

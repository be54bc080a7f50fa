"""Callouts of a stack that lives long."""

from collections.abc import Callable

from tiptoe_driver import Stack
from tiptoe_driver.netinet.clock import Callout, Clock, Deadline


class Now:
    """A device that only has the time."""

    now = 0

    def poll(self):
        return False

    def wait(self, timeout_us):
        return False

    def now_us(self):
        return self.now


def test_cancelled_callouts_do_not_pile_up():
    """A limit of a minute for each connection of a hundred thousand, all over at once."""
    stack, device, called = Stack(), Now(), []
    stack.attach_device(device)
    kept = [stack.callout(1000 * n, lambda n=n: called.append(n)) for n in range(1, 4000)]
    for _ in range(100_000):
        stack.callout(60_000_000, lambda: called.append("late")).cancel()
        assert len(stack._callouts) <= 2 * len(kept) + Clock.CALLOUTS
    device.now = 70_000_000
    stack.poll()
    assert called == list(range(1, 4000))


class Hours:
    """A clock whose callouts the test runs."""

    def __init__(self) -> None:
        self.now = 100
        self.callouts: list[tuple[int, Callout]] = []
        self.asked = 0

    def now_us(self) -> int:
        return self.now

    def callout(self, delay_us: int, function: Callable[[], None]) -> Callout:
        self.asked += 1
        entry = Callout(function)
        self.callouts.append((self.now + delay_us, entry))
        return entry

    def until(self, time: int) -> None:
        while due := [each for each in self.callouts if each[0] <= time and each[1].function is not None]:
            at, entry = min(due, key=lambda each: each[0])
            self.callouts.remove((at, entry))
            self.now = max(self.now, at)
            assert entry.function is not None
            entry.function()
        self.now = time


def test_a_deadline_that_is_moved_comes_once_and_then() -> None:
    clock, called = Hours(), []
    deadline = Deadline(clock, lambda: called.append(clock.now))
    assert not deadline.running
    deadline.set(50)
    for time in range(110, 1000, 10):
        clock.until(time)
        deadline.set(50)
    assert called == [] and deadline.running and deadline.due_us == 1040
    assert clock.asked < 30, "later is for nothing: a callout for each time that has passed, not for each move"
    clock.until(1039)
    assert called == []
    clock.until(5000)
    assert called == [1040] and not deadline.running


def test_a_deadline_moved_to_sooner_comes_sooner_and_cancelled_not_at_all() -> None:
    clock, called = Hours(), []
    deadline = Deadline(clock, lambda: called.append(clock.now))
    deadline.set(500)
    deadline.set(20)
    deadline.set(30)
    clock.until(1000)
    assert called == [130]
    deadline.set(10)
    deadline.cancel()
    deadline.cancel()
    clock.until(2000)
    assert called == [130] and not deadline.running
    deadline.set(0)
    clock.until(2000)
    assert called == [130, 2000]


def test_a_deadline_set_anew_by_its_own_function() -> None:
    clock, called = Hours(), []

    def again() -> None:
        called.append(clock.now)
        if len(called) < 3:
            deadline.set(10)

    deadline = Deadline(clock, again)
    deadline.set(10)
    clock.until(1000)
    assert called == [110, 120, 130]

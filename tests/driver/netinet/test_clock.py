"""Callouts of a stack that lives long."""

from tiptoe_driver import Stack
from tiptoe_driver.netinet.clock import Clock


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

"""What a cable may do wrong, said so that somebody at a desk can mend it."""

from __future__ import annotations

from tiptoe_driver import DeviceError


class CableError(DeviceError):
    """The board behind a cable does not answer, or is not what it was; the message says what to look at."""

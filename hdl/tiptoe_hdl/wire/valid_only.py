"""A stream that is always taken: ``valid`` and ``payload`` without ``ready``."""

from amaranth.lib import wiring
from amaranth.lib.wiring import Out


def valid_only(shape) -> wiring.Signature:
    """Signature of a port whose payload counts in every cycle with ``valid``: it can't be refused."""
    return wiring.Signature({"valid": Out(1), "payload": Out(shape)})

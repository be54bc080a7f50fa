"""Tiptoe for LiteX: ``from tiptoe_litex import Tiptoe`` (docs/integration.md)."""

from .engine import Tiptoe
from .frames import FrameStream
from .mac import add_mac

__all__ = ["FrameStream", "Tiptoe", "add_mac"]

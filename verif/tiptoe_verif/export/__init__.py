"""``tiptoe verilog``: the engine for somebody's own design, as a folder of Verilog and of what tools want beside it."""

from .choice import ENGINE, MAC_ENGINE, Choice
from .folder import export

__all__ = ["ENGINE", "MAC_ENGINE", "Choice", "export"]

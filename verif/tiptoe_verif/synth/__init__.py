"""Place and route of single blocks and the whole engine on ECP5."""

from .flow import SynthResult, synth_block

__all__ = ["SynthResult", "synth_block"]

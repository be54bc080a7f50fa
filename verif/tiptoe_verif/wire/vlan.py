"""Tags of IEEE 802.1Q: what an interface in a network makes of frames (clauses 6.8 and 9)."""

from __future__ import annotations

from dataclasses import dataclass

from .monitor import WireError

TPID = b"\x81\x00"


def tagged(frame: bytes, vid: int, priority: int = 0) -> bytes:
    """The frame with a tag behind its addresses."""
    return frame[:12] + TPID + (priority << 13 | vid).to_bytes(2, "big") + frame[12:]


def tag_of(frame: bytes) -> tuple[int, int] | None:
    """Network and priority of a tagged frame."""
    if len(frame) < 16 or frame[12:14] != TPID:
        return None
    control = int.from_bytes(frame[14:16], "big")
    return control & 0xFFF, control >> 13


def untagged(frame: bytes) -> bytes:
    """A tagged frame without its tag."""
    return frame[:12] + frame[16:]


@dataclass(frozen=True)
class VlanPort:
    """An interface: ``vlan`` its network, 0 if it sends priority tags, None if it sends none."""

    vlan: int | None = None

    def received(self, frame: bytes) -> bytes | None:
        """What it makes of a frame on the wire; None: it is of another network."""
        tag = tag_of(frame)
        if self.vlan:
            return untagged(frame) if tag is not None and tag[0] == self.vlan else None
        return untagged(frame) if tag is not None and tag[0] == 0 else frame

    def sent(self, frame: bytes) -> bytes:
        """A frame that it has sent, without its tag; WireError if it must not have sent it so."""
        tag = tag_of(frame)
        if self.vlan is None:
            return frame
        if tag is None or tag[0] != self.vlan:
            raise WireError(
                f"a frame of VLAN {self.vlan} was due, not {'one without a tag' if tag is None else f'of {tag[0]}'}"
            )
        return untagged(frame)

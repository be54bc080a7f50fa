"""The proofs, and what is expected of each."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from . import streams
from .bucket import BucketProof, Pouring
from .consumer import ConsumerProof, Ordered
from .controls import ControlsProof
from .counts import CountsProof
from .limit import LimitProof, Skipping
from .merge import MergeProof, Restless
from .prove import Outcome, prove
from .settle import Compared, SettleProof


@dataclass(frozen=True)
class Proof:
    """One proof: ``factory`` makes the component, ``search`` as for :func:`~tiptoe_verif.formal.prove.prove`."""

    name: str
    factory: Callable[[], Any]
    expected: Literal["proved", "refuted"] = "proved"
    search: int = 0

    def run(self) -> Outcome:
        """Some seconds."""
        return prove(self.factory(), self.name, steps=16, search=self.search)


PROOFS = (
    Proof("settle", SettleProof),
    Proof("settle-compared", lambda: SettleProof(Compared), expected="refuted", search=30),
    Proof("counts", CountsProof),
    Proof("bucket", BucketProof),
    Proof("bucket-pouring", lambda: BucketProof(Pouring), expected="refuted", search=20),
    Proof("limit", LimitProof),
    Proof("limit-skipping", lambda: LimitProof(Skipping), expected="refuted", search=20),
    Proof("consumer", ConsumerProof),
    Proof("consumer-ordered", lambda: ConsumerProof(Ordered), expected="refuted", search=20),
    Proof("controls", ControlsProof),
    Proof("controls-blind", lambda: ControlsProof(looks=False), expected="refuted", search=40),
    Proof("queue", streams.queue),
    Proof("queue-hasty", streams.hasty_queue, expected="refuted", search=20),
    Proof("half-queue", streams.half_queue),
    Proof("half-buffer", streams.half_buffer),
    Proof("half-buffer-eager", streams.eager_half_buffer, expected="refuted", search=20),
    Proof("skid", streams.skid),
    Proof("skid-following", streams.following_skid, expected="refuted", search=20),
    Proof("merge", MergeProof),
    Proof("merge-restless", lambda: MergeProof(Restless), expected="refuted", search=20),
)

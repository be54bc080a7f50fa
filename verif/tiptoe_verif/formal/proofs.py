"""The proofs, and what is expected of each."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from .counts import CountsProof
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
)

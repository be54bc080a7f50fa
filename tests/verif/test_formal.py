"""The proofs hold, and they find the fault that they are there for."""

import pytest

from tiptoe_verif.formal.proofs import PROOFS


@pytest.mark.parametrize("proof", PROOFS, ids=[proof.name for proof in PROOFS])
def test_proof(proof):
    outcome = proof.run()
    assert outcome.verdict == proof.expected
    assert (outcome.trace is not None and outcome.trace.exists()) == (proof.expected == "refuted")

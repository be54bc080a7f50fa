"""``python -m tiptoe_verif.formal``: every proof, and the faults that they must find."""

import sys

from .proofs import PROOFS


def main() -> None:
    """Run them; the exit code is 1 if one did not come out as it should."""
    wrong = 0
    for proof in PROOFS:
        outcome = proof.run()
        wrong += outcome.verdict != proof.expected
        trace = f", {outcome.trace}" if outcome.trace else ""
        print(f"{proof.name}: {outcome.verdict} ({outcome.steps} steps{trace}); expected: {proof.expected}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()

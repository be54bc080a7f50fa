"""Proofs of small parts by k-induction, with yosys' own SAT solver: ``python -m tiptoe_verif.formal``."""

"""Verification of Tiptoe: simulation, live traffic, benchmarks, synthesis."""

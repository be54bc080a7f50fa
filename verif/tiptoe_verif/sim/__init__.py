"""Builds and runs Verilated simulations of Amaranth components."""

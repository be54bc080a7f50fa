"""Tiptoe's TCP offload engine, written in Amaranth HDL."""

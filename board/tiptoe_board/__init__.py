"""Tiptoe on a board: a LiteX top around the engine, its bitstream, and its simulation."""

"""Unmodified programs on the engine: an interposer in the program, a broker beside the driver."""

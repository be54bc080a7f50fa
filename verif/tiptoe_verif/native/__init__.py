"""Native simulation: the Verilated engine called from Python in large steps."""

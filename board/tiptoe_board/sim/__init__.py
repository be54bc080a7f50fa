"""The whole top in Verilator, with a line at its PHY."""

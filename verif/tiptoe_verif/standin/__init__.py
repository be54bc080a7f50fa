"""The stand-in for the host's software TCP, for pure simulation."""

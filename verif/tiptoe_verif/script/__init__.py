"""Packet scripts: packetdrill's language on the simulated engine, in simulated time (docs/script.md)."""

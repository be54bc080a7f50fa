"""Transmit path: schedule, fetch payload, build segments, checksum, send."""

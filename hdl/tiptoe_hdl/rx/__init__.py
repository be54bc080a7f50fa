"""Receive path: parse, verify checksums, look up, decide, place payload."""

"""Passive opens: listen table, syncache and SYN cookies."""

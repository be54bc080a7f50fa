"""Reno, RFC 5681 section 3.2: as NewReno, but recovery ends with the first acknowledgement of new data."""

from .program import Algorithm

RENO = Algorithm(name="reno", text="RFC 5681 section 3.2.", first_ack=True)

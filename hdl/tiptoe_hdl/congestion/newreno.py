"""NewReno, RFC 5681 and RFC 6582: a segment more for each window that is acknowledged, half at a loss."""

from .program import Algorithm

NEWRENO = Algorithm(name="newreno", text="RFC 6582.")

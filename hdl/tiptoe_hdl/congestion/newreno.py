"""NewReno, RFC 5681 and RFC 6582: a segment more for each window that is acknowledged, half at a loss. With HyStart++ (RFC
9406) in engines that run programs anyway."""

from . import hystart
from .program import Algorithm

NEWRENO = Algorithm(
    name="newreno",
    text="RFC 6582.",
    programs={"begin": hystart.BEGIN, "timeout": hystart.OVER, "loss": hystart.OVER, "rtt": hystart.SAMPLE},
    complete=True,
)

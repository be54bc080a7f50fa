"""Congestion control algorithms, as data: one file each, listed in ``ALGORITHMS``. ``flow/congestion`` runs their
programs."""

from .cubic import CUBIC
from .dctcp import DCTCP
from .host import HOST
from .newreno import NEWRENO
from .program import Algorithm
from .reno import RENO

ALGORITHMS: tuple[Algorithm, ...] = (NEWRENO, RENO, CUBIC, HOST, DCTCP)
"""All there are; their places are their numbers, in commands, registers and the TCB. New ones at the end. From this follow
``messages.Congestion``, what the register CONGESTION lists, the driver's names and the documentation."""

ALGORITHM_BITS = 3

NUMBERS = {algorithm.name: number for number, algorithm in enumerate(ALGORITHMS)}

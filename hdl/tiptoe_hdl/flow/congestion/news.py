"""What goes between the TCB pipeline and the congestion control unit."""

from dataclasses import replace

from amaranth.lib import data

from ...config import EngineConfig
from ...congestion import ALGORITHM_BITS, ALGORITHMS
from ...congestion.program import DECREASE_BITS, GROWTH_BITS, NEVER, SLOW_BITS, Algorithm
from ..tcb import CWND_BITS, TICK_BITS


def told_layout(cfg: EngineConfig) -> data.StructLayout:
    """Of a connection, as the last event has left it; names of ``congestion/program.py``. Newer news replace older ones."""
    return data.StructLayout(
        {
            "algorithm": ALGORITHM_BITS,
            "cwnd": CWND_BITS,
            "una": 32,
            "mss": cfg.length_bits,
            "srtt": TICK_BITS,  # times 8
            "limited": 1,
            "marked": 32,
        }
    )


def congestion_news(cfg: EngineConfig) -> data.StructLayout:
    """An event that congestion control hears of: ``begin``, ``timeout``, ``loss``, ``ack``, of which the last two may come
    together; ``before``: cwnd before it, with ``timeout`` and ``loss``; the sample, with ``rtt``."""
    return data.StructLayout(
        {
            "id": cfg.id_bits,
            "begin": 1,
            "timeout": 1,
            "loss": 1,
            "rtt": 1,
            "ack": 1,
            "told": told_layout(cfg),
            "before": CWND_BITS,
        }
    )


Steering = data.StructLayout(
    {
        "growth": GROWTH_BITS,
        "by_cwnd": 1,  # growth is cwnd
        "holds": 1,  # cwnd does not grow in congestion avoidance
        "decrease": DECREASE_BITS,
        "keeps_most": 1,  # decrease is two thirds or more
        "first_ack": 1,
        "hosts": 1,
        "slow": SLOW_BITS,  # Slow
    }
)
"""How a connection's window grows and falls: what the pipeline reads like a bank. Names of ``congestion/program.py``."""


def keeps_most(decrease):
    """At least two thirds: of three segments at least two remain."""
    return decrease >= -(-(2 << DECREASE_BITS) // 3)


def steering_of(algorithm: Algorithm) -> dict:
    """With what a connection under this algorithm begins."""
    return dict(
        growth=algorithm.growth,
        by_cwnd=algorithm.growth == 0,
        holds=algorithm.growth == NEVER,
        decrease=algorithm.decrease,
        keeps_most=keeps_most(algorithm.decrease),
        first_ack=algorithm.first_ack,
        hosts=algorithm.hosts,
        slow=0,
    )


def built_in(cfg: EngineConfig) -> list[tuple[int, Algorithm]]:
    """Number and algorithm of those that the engine has; without programs, if each is complete without."""
    found = [(number, algorithm) for number, algorithm in enumerate(ALGORITHMS) if algorithm.name in cfg.congestion]
    if all(algorithm.complete or not algorithm.programs for _, algorithm in found):
        return [(number, replace(algorithm, programs={})) for number, algorithm in found]
    return found

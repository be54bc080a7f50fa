"""Random traffic between two engines: every byte checked, every id free again at the end."""

import pytest

from tests.verif.native.traffic import Plan, run_traffic
from tiptoe_driver.hardware.abi_gen import REG_MSL_TICKS, REG_RTO_INITIAL, REG_RTO_MAX, REG_RTO_MIN
from tiptoe_verif.native.pair import Pair
from tiptoe_verif.native.simulation import Conditions, Impairment

SHORT_TIMES = {"registers": {REG_MSL_TICKS: 20, REG_RTO_INITIAL: 50, REG_RTO_MIN: 20, REG_RTO_MAX: 1000}}
"""In milliseconds: simulated seconds are dear."""
ROUGH = {"loss": 0.01, "reorder": 0.02, "duplicate": 0.02, "corrupt": 0.01, "jitter_us": 200, "delay_us": 400}
HOSTILE = Conditions(
    memory_latency=30, memory_jitter=60, memory_stall=0.2, rx_stall=0.2, tx_stall=0.2, register_stall=0.3
)


def test_clean_line(rng, out_dir):
    with Pair("tiny", seed=rng.getrandbits(16), driver=SHORT_TIMES, pcap=out_dir / "clean.pcap") as pair:
        outcomes = run_traffic(pair, Plan(connections=30, at_once=5, largest=20_000, aborted=0), rng.getrandbits(16))
        assert outcomes == {"complete": 30}


def test_rough_line_with_aborts(rng, out_dir):
    seed = rng.getrandbits(16)
    line = Impairment(seed=seed, **ROUGH)
    with Pair("tiny", impairment=line, seed=seed, driver=SHORT_TIMES, pcap=out_dir / "rough.pcap") as pair:
        outcomes = run_traffic(pair, Plan(connections=20, at_once=4, largest=20_000, aborted=0.2), seed)
        assert outcomes["complete"] > 10


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(20))
def test_soak(seed, out_dir):
    line = Impairment(seed=seed, **ROUGH) if seed % 2 else None
    conditions = HOSTILE if seed % 3 == 0 else None
    with Pair(
        "tiny", impairment=line, conditions=conditions, seed=seed, driver=SHORT_TIMES, pcap=out_dir / "soak.pcap"
    ) as pair:
        outcomes = run_traffic(pair, Plan(connections=300, at_once=5, largest=60_000), seed)
        assert outcomes["complete"] > 200

"""docs/report.md, "The files": a record of a simulation of one's own."""

# [shown]
from pathlib import Path

from tiptoe_verif.native.recorder import CAPTURE, Recorder
from tiptoe_verif.native.simulation import Simulation

folder = Path("build/mine")
with Simulation("tiny", pcap=folder / CAPTURE) as sim, Recorder(sim, folder, "my test", interval_us=1000) as recorder:
    sim.run_us(10_000)
    print(recorder.samples, "samples")
# [/shown]

"""docs/adding-a-congestion-control.md: Scalable TCP, complete; and that it finds room beside the engine's own algorithms."""

# [shown]
from tiptoe_hdl.congestion.program import Algorithm, Program


def _ack() -> Program:
    p = Program()
    p.set("sixteen", 16)
    p.mul("least", "mss", "sixteen")
    p.less("cwnd", "least", "reno")
    p.set("hundred", 100)
    p.mul("growth", "mss", "hundred")
    p.set("share", 224)  # 7/8 of 256
    p.copy("decrease", "share")
    p.label("reno")  # growth is 0, decrease the algorithm's own, unless they are written
    return p


SCALABLE = Algorithm(name="scalable", text="Kelly, Scalable TCP.", programs={"ack": _ack()})
# [/shown]

from tiptoe_hdl.congestion import ALGORITHMS
from tiptoe_hdl.congestion.program import assemble

words = assemble(enumerate((*ALGORITHMS, SCALABLE)))
print(f"{len(words)} instructions with those of the others")

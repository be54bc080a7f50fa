"""docs/adding-a-congestion-control.md: the algorithm shown there is complete, and runs."""

import re
from pathlib import Path

import pytest

from tests.hdl.congestion.interpreter import Interpreter
from tiptoe_hdl.congestion import ALGORITHM_BITS, ALGORITHMS, NUMBERS
from tiptoe_hdl.congestion.program import LABEL_BITS, NEWS, SETTINGS, Algorithm, Program, assemble
from tiptoe_hdl.messages import Congestion

PAGE = Path(__file__).parents[3] / "docs" / "adding-a-congestion-control.md"
NEWS_OF = dict.fromkeys(NEWS, 0)


def shown() -> Algorithm:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    names: dict = {}
    exec(code, names)
    return names["SCALABLE"]


@pytest.mark.parametrize(
    "segments, growth, decrease", [(15, 0, 128), (16, 146_000, 224), (1000, 146_000, 224), (11000, 146_000, 224)]
)
def test_the_algorithm_of_the_page(segments, growth, decrease):
    assert Interpreter(shown()).run("ack", **NEWS_OF | dict(mss=1460, cwnd=segments * 1460)) == {
        "growth": growth,
        "decrease": decrease,
        "slow": 0,
    }


def test_it_fits_beside_the_others():
    assert len(assemble(enumerate((*ALGORITHMS, shown())))) <= 1 << LABEL_BITS
    assert len(ALGORITHMS) < 2**ALGORITHM_BITS


def test_everything_follows_from_the_table():
    assert {member.name: member.value for member in Congestion} == {n.upper(): k for n, k in NUMBERS.items()}
    assert len(NUMBERS) == len(ALGORITHMS) and set(SETTINGS) == {"growth", "decrease", "slow"}


def refused(message):
    return pytest.raises(ValueError, match=message)


def test_mistakes_in_a_program_are_told_of():
    p = Program(("kept",))
    for wrong, message in (
        (lambda: p.add("x", "y", "mss"), "y is read before it is set"),
        (lambda: p.copy("mss", "cwnd"), "told by the pipeline"),
        (lambda: p.set("x", 1 << 23), "does not fit"),
        (lambda: p.mul("x", "mss", "mss", 32), "shifted"),
        (lambda: [p.set(f"t{k}", 0) for k in range(17)], "15 temporaries"),
        (lambda: [p.label("a"), p.label("a")], "stands twice"),
        (lambda: [p.jump("nowhere"), p.words(0)], "no label nowhere"),
        (lambda: Program(("mss",)), "names of their own"),
        (lambda: Algorithm(name="x", text="", decrease=256), "128 to 255"),
        (lambda: Algorithm(name="x", text="", programs={"never": p}), "no such events"),
    ):
        with refused(message):
            wrong()
    long = Program()
    for _ in range(520):
        long.end()
    with refused("more than 512"):
        assemble([(0, Algorithm(name="x", text="", programs={"ack": long}))])

"""A stream's payload needs no reset: nobody looks at it unless ``valid`` says so, and ``valid`` has one. Nor does the data of a
memory's write port, beside its enable.

Amaranth lets a signal of one's own go without (``reset_less``), but no member of an interface. Every reset costs twice on an
ECP5: the wire, and the choice of places, for the two flip-flops of a slice have one in common, and so do two of the four slices
of a tile.
"""

from __future__ import annotations

import re

_DATA = r"(?:\w+__)?(?:payload|write__data|store__data)(?:\$\d+)?"
"""Names of such signals in RTLIL."""
_RESET = re.compile(
    r"    switch \\rst \[0\]\n      case 1'1\n        assign (?P<next>\$\d+) [^\n]*\n    end\n"
    r"(?P<flop>  end\n\n  cell \$dff \$\d+\n(?:    parameter [^\n]*\n)*"
    r"    connect \\D (?P=next) [^\n]*\n    connect \\CLK [^\n]*\n    connect \\Q \\" + _DATA + r"(?: \[[\d:]+\])?\n)"
)


def without_payload_resets(rtlil: str) -> str:
    """The design, in the RTLIL that Amaranth writes, with the reset of all payloads taken out; their initial values stay."""
    return _RESET.sub(r"\g<flop>", rtlil)

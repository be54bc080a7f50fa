"""Large blocks whose clock stands still while nothing changes in them: the same in every cycle, but not computed again.

A pipeline computes all its stages in every cycle, also when no work has entered it for long. Here such a block gets a
clock of its own, ``clk_busy``, and a signal ``resting``: when it is high before an edge of ``clk``, the block would be
the same after it, and the harness leaves out that edge of ``clk_busy``.

That is decided from the Verilog, not from what the block is meant to do. Its signals are a graph: what the next value
of each is made of. Registers on a loop of this graph are *watched*. (A register that only keeps its value is not a loop.)
When inputs and watched registers stay as they are and no memory is written, all other registers become what these make
of them, after as many cycles as there are registers on the longest path. One cycle more shows that watched registers
stay, too; from then on nothing changes.

Inputs of one bit have to be low: what a multiplexer would choose only if one of them were high (a forwarded result) is
not in the graph. A block in a form not known here, or with much to watch, keeps its clock.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field

REGISTERS = 200
"""Smaller blocks are not worth it."""
WATCHED = 64
"""Bits of registers to be watched, at most."""

_MODULE = re.compile(r"^module \\?(\S+?) ?\(.*?^endmodule\n", re.M | re.S)
_NAME = r"(?:\\\S+|[A-Za-z_]\w*)"
_DECLARED = re.compile(rf"(input|output|wire|reg) +(?:\[(\d+):0\] )?({_NAME}) ?(\[\d+:\d+\])?(?: = \d+(?:'\w+)?)?;")
_OPERAND = r"(?:[^?:\[\]]|\[[\d:]+\])*"
_CHOICE = re.compile(rf"({_NAME}) +\? {_OPERAND} : ({_OPERAND});")
_WRITE = re.compile(rf"always @\(posedge clk\) begin\n    if \(([^\n]*)\)\n      ({_NAME}) ?\[[^\n]*\] *<= [^;]*;")
_SINGLE = re.compile(rf"always @\(posedge clk\)\n    ({_NAME}) +<= ([^;]*);")
_IDENTIFIER = re.compile(r"\d+'\w+|\d+|\\\S+|[A-Za-z_]\w*")
_ZERO = re.compile(r"\d+'[hbd]0+")
_WORDS = {"always", "posedge", "clk", "begin", "end", "if", "else", "case", "casez", "default", "endcase"}


class _UnknownForm(Exception):
    pass


@dataclass
class _Block:
    """A module as a graph."""

    widths: dict[str, int] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)
    registers: set[str] = field(default_factory=set)
    memories: set[str] = field(default_factory=set)
    writes: list[str] = field(default_factory=list)
    """Conditions under which memories are written."""
    sources: dict[str, set[str]] = field(default_factory=dict)
    """What the (next) value of a signal is made of."""
    values: dict[str, list[str]] = field(default_factory=dict)
    """All that is ever assigned to a signal that does not keep its value."""


def let_rest(verilog: str, clock: str) -> tuple[str, list[str]]:
    """The Verilog with ``resting`` in the blocks that can rest, on ``clock`` (a path from above); and these modules."""
    found = []

    def change(module: re.Match[str]) -> str:
        if module[0].count("posedge clk") < REGISTERS:
            return module[0]
        try:
            changed = _changed(module[0], clock)
        except _UnknownForm:
            return module[0]
        found.append(module[1])
        return changed

    return _MODULE.sub(change, verilog), found


def _changed(module: str, clock: str) -> str:
    block = _read(module)
    watched = sorted(_looped(block.sources) & block.registers)
    if sum(block.widths[name] for name in watched) > WATCHED:
        raise _UnknownForm("too much to watch")
    cycles = _depth(block, set(watched)) + 2
    kept = [name for name in block.inputs if block.widths[name] > 1] + watched
    now = "{" + ", ".join(f"{name} " for name in kept) + "}"
    still = [f"({now} == rest_was)", *(f"!{name} " for name in block.inputs if block.widths[name] == 1)]
    still += [f"!({condition})" for condition in block.writes]
    lines = [
        f"  reg [{sum(block.widths[name] for name in kept) - 1}:0] rest_was = 0;",
        f"  reg [{cycles.bit_length() - 1}:0] rest_cycles = 0;",
        f"  wire rest_same = {' & '.join(still)};",
        f"  wire resting = rest_same & (rest_cycles == {cycles});",
        "  always @(posedge clk) begin",
        f"    if (!rest_same) begin rest_cycles <= 0; rest_was <= {now}; end",
        f"    else if (rest_cycles != {cycles}) rest_cycles <= rest_cycles + 1;",
        "  end", "endmodule", "",
    ]  # fmt: skip
    return module.removesuffix("endmodule\n").replace("(posedge clk)", f"(posedge {clock})") + "\n".join(lines)


# --- the graph ---


def _read(module: str) -> _Block:
    block = _Block()
    outputs: set[str] = set()
    processes = []
    body = re.sub(r"\(\*.*?\*\)\s*", "", module.removesuffix("endmodule\n"))
    for item in re.split(r"\n  (?=[^ \n])", body):
        text = item.strip()
        if found := _DECLARED.fullmatch(text):
            kind, high, name, rows = found.groups()
            block.widths[name] = int(high or 0) + 1
            if rows:
                block.memories.add(name)
            elif kind == "input" and name != "clk":
                block.inputs.append(name)
            elif kind == "output":
                outputs.add(name)
        elif text.startswith(("assign ", "always ")):
            processes.append(text)
        elif not re.match(r"module |initial |end\s*\Z", text):
            raise _UnknownForm(text)
    for text in processes:
        _read_process(block, text)
    low = _low(block)
    for name, values in block.values.items():
        if len(values) == 1 and (choice := _CHOICE.fullmatch(values[0])) and choice[1] in low:
            block.sources[name] = {choice[1], *_identifiers(choice[2])}
    known = block.sources.keys() | set(block.inputs) | block.memories
    if unknown := outputs.union(*block.sources.values()) - known:
        raise _UnknownForm(f"where does {min(unknown)} come from?")
    for name in block.sources:
        block.sources[name] -= block.memories  # they rest as long as they are not written
    return block


def _read_process(block: _Block, text: str) -> None:
    if found := _WRITE.fullmatch(text):
        if found[2] not in block.memories:
            raise _UnknownForm(text)
        block.writes.append(found[1])
    elif found := _SINGLE.fullmatch(text):
        _add(block, found[1], text, "<=")
        block.values[found[1]] = [f"{found[2]};"]
        block.registers.add(found[1])
    elif text.startswith("always @(posedge clk) begin"):
        for statement in _statements(text):
            for name in _targets(statement, "<="):
                _add(block, name, statement, "<=")
                block.registers.add(name)
    elif text.startswith("always @* begin"):
        # Yosys begins with an empty test of an unconnected signal; then the value unless another is assigned.
        body = re.sub(r"\n    if \(\S+ ?\) begin end", "", text, count=1)
        for name in _targets(body, "="):
            _add(block, name, body, "=")
            block.values[name] = re.findall(rf"^ +{re.escape(name)} +(?:\[[^\]]*\] *)?= ([^;]*;)", body, re.M)
    elif text.startswith("assign "):
        left, equals, right = text.removeprefix("assign ").partition(" = ")
        if not equals:
            raise _UnknownForm(text)
        whole = re.fullmatch(rf"{_NAME} *", left) is not None
        for name in _identifiers(left):
            block.sources.setdefault(name, set()).update(_identifiers(right))
            block.values.setdefault(name, []).append(right if whole else "?")
    else:
        raise _UnknownForm(text)


def _statements(process: str) -> list[str]:
    """The statements of a process as `merge_registers` writes it: those under its resets stand at the same depth."""
    statements: list[str] = []
    lines: list[str] = []
    for line in process.split("\n")[1:]:
        if not lines and line in ("    begin", "    end", "  end"):
            continue
        lines.append(line)
        single = len(lines) == 1 and line.endswith(";")
        if single or line in ("    end", "    end else", "    endcase"):
            statements.append("\n".join(lines))
            lines = []
    if lines:
        raise _UnknownForm("\n".join(lines))
    return statements


def _target(operator: str) -> re.Pattern[str]:
    return re.compile(rf"^( *)({_NAME})( *(?:\[[^\]]*\])? *){operator} ", re.M)


def _targets(text: str, operator: str) -> set[str]:
    found = [match[2] for match in _target(operator).finditer(text)]
    if len(found) != text.count(";"):
        raise _UnknownForm(text)  # an assignment in another form
    return set(found)


def _add(block: _Block, name: str, text: str, operator: str) -> None:
    rest = _target(operator).sub(r"\1\3", text)
    block.sources.setdefault(name, set()).update(_identifiers(rest))


def _identifiers(text: str) -> set[str]:
    return {name for name in _IDENTIFIER.findall(text) if not name[0].isdigit() and name not in _WORDS}


def _low(block: _Block) -> set[str]:
    """Signals that are zero when the inputs of one bit have been for long: nothing but copies of them."""
    low = {name for name in block.inputs if block.widths[name] == 1}
    while True:
        more = {
            name
            for name, values in block.values.items()
            if all(_ZERO.fullmatch(value := text.rstrip(" ;")) or value in low for text in values)
        } - low
        if not more:
            return low
        low |= more


def _looped(sources: dict[str, set[str]]) -> set[str]:
    """All on loops, and what lies between loops."""
    users: dict[str, set[str]] = {}
    for name, found in sources.items():
        for source in found:
            users.setdefault(source, set()).add(name)
    left = set(sources)
    for edges, others in ((sources, users), (users, sources)):
        count = {name: len(edges.get(name, set()) & left) for name in left}
        free = deque(name for name in left if not count[name])
        while free:
            name = free.popleft()
            left.discard(name)
            for other in others.get(name, set()):
                if other in count:
                    count[other] -= 1
                    if not count[other]:
                        free.append(other)
    return left


def _depth(block: _Block, watched: set[str]) -> int:
    """Registers on the longest path that passes no watched one."""
    depth = dict.fromkeys([*block.inputs, *watched, *block.memories], 0)
    left = {name: sources for name, sources in block.sources.items() if name not in watched}
    while left:
        ready = {name for name, sources in left.items() if sources <= depth.keys()}
        if not ready:
            raise _UnknownForm("a loop of wires")
        for name in ready:
            below = max((depth[source] for source in left.pop(name)), default=0)
            depth[name] = below + (name in block.registers)
    return max(depth.values())

"""Registers that take their next value where it is computed: the same Verilog, but faster when Verilated.

Amaranth and Yosys write a register as two processes, one that always computes its next value and one that takes it::

    always @(posedge clk)                       always @(posedge clk) begin
      count <= \\$7 ;                               if (rst) begin
    always @* begin                                  count <= 4'h0;
      \\$7  = count;                                end else begin
      if (enable) begin                 →            if (enable) begin
        \\$7  = \\$5 ;                                   count <= \\$5 ;
      end                                            end
      if (rst) begin                               end
        \\$7  = 4'h0;                             end
      end
    end

As one process, what a register holds on to is neither copied nor computed, and the registers of a module share the
test of their reset. Only what has exactly this form is changed; the rest stays as it was written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_MODULE = re.compile(r"^module .*?^endmodule\n", re.M | re.S)
_TAKEN = re.compile(r"^  always @\(posedge (\S+)\)\n    (\S+) {1,2}<= (\\\S+) ;\n", re.M)
_COMPUTED = re.compile(
    r"^  always @\* begin\n    if \(\S+ ?\) begin end\n    (\\\S+)  = (\S+?) ?;\n(.*?)^  end\n", re.M | re.S
)
# Last in a process: the resets of the domain and of ResetInserters (signals or bits of them), to a constant.
_CONDITION = r"(?:\w+|\\\S+ )(?: ?\[\d+\])?"
_RESETS = re.compile(rf"(?:^    if \({_CONDITION}\) begin\n      \S+ {{1,2}}<= \d+'[0-9a-z]+;\n    end\n)*\Z", re.M)
_RESET = re.compile(rf"^    if \(({_CONDITION})\) begin\n(      \S+ {{1,2}}<= \S+;\n)", re.M)


def merge_registers(verilog: str) -> str:
    """The same design, each register in one process where that is possible."""
    return _MODULE.sub(lambda found: _merge_module(found[0]), verilog)


def _merge_module(module: str) -> str:
    computed = {found[1]: found for found in _COMPUTED.finditer(module)}
    gone: list[tuple[int, int]] = []
    groups: dict[tuple[str, tuple[str, ...]], list[tuple[str, list[str]]]] = {}
    for taken in _TAKEN.finditer(module):
        clock, register, following = taken.groups()
        process = computed.get(following)
        if process is None or process[2] != register:
            continue
        assigned = re.compile(rf"^( +){re.escape(following)} (\[[^\]]*\])? ?= ", re.M)
        name = register.replace("\\", r"\\")
        body, count = assigned.subn(rf"\1{name} \2 <= ", process[3])
        # Besides these assignments: its declaration, the first assignment, and where it was taken.
        if len(re.findall(rf"{re.escape(following)}(?=\s)", module)) != count + 3:
            continue
        gone += [taken.span(), process.span()]
        body = body.replace(f"{register}  <= ", f"{register} <= ")
        resets = _RESETS.search(body)
        assert resets is not None
        found = _RESET.findall(resets[0])
        group = groups.setdefault((clock, tuple(name for name, _ in found)), [])
        group.append((body[: resets.start()], [assignment for _, assignment in found]))
    kept, position = [], 0
    for begin, end in sorted(gone):
        kept.append(module[position:begin])
        position = end
    rest = module[position:].removesuffix("endmodule\n")
    return "".join([*kept, rest, *(_process(*key, group) for key, group in groups.items()), "endmodule\n"])


def _process(clock: str, resets: tuple[str, ...], group: Iterable[tuple[str, list[str]]]) -> str:
    lines = [f"  always @(posedge {clock}) begin\n"]
    for number in reversed(range(len(resets))):  # the last assignment counts
        lines += [
            f"    if ({resets[number]}) begin\n",
            *(values[number] for _, values in group),
            "    end else\n",
        ]
    return "".join([*lines, "    begin\n", *(body for body, _ in group), "    end\n  end\n"])

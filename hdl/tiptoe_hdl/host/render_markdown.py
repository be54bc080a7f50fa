"""Renders docs/registers.md and docs/rings.md."""

import inspect
import re

from ..messages import Congestion, Counter, Reason, State, Status
from . import abi
from .register_map import Register, RegisterMap
from .render_python import NOTICE

RINGS_INTRODUCTION = """\
Both rings lie in host memory. Entries are little endian; a field is named by its dword (32 bits) and its bits in it;
a field of more than 32 bits goes on in the next dword. Bits without a field are 0. A *tid* is a connection id in
bits 15:0 and its generation in bits 23:16: the driver chooses a generation with each PROVISION, and a command
with another one fails with BAD_GENERATION. A *position* counts the bytes of a ring since the connection began.
"""

COMMANDS_INTRODUCTION = f"""\
An entry has {abi.COMMAND_BYTES} bytes. The driver writes entries, then COMMAND_TAIL. Commands are executed in order. A failed
command is answered by a COMMAND_DONE event with its tag; a successful one only where noted. A refused command
changes nothing.
"""

EVENTS_INTRODUCTION = f"""\
An entry has {abi.EVENT_BYTES} bytes and is written at once. Its phase bit is 1 on the first pass over the ring, 0 on the
second, and so on: the driver reads entries while the phase is the one of its pass, then writes EVENT_CONSUMER.
The ring never overflows: the engine waits for EVENT_CONSUMER, and progress of a connection folds into one
snapshot meanwhile. A ring of any size will do.
"""

TCB_INTRODUCTION = """\
What READ_TCB reads, by its `page`; the names are those of RFC 9293 and of hdl/tiptoe_hdl/flow/tcb.py. Sequence numbers are what
stands in segments. Times are in ticks, `srtt` times 8, `rttvar` times 4. `maxseg_high` is what `maxseg` has beyond its twelve
bits, of engines with long frames. A page is read in one moment; two pages are not.
"""

FRAMES_INTRODUCTION = f"""\
Slots of {abi.HOST_FRAME_SLOT_BYTES} bytes in the frame ring hold received frames that are the host's; of engines with longer
frames they have the least power of two that holds LIMITS.MAX_FRAME_BYTES and 2. The frame begins at byte 2, so that its IP
header is aligned. The driver writes FRAME_CONSUMER after it took frames; frames that find no free slot are dropped and counted
(RX_HOST_DROPPED). A FRAME event of length 0 is a slot that could not be written.
"""


def comments(enum) -> dict[str, str]:
    """Comment behind each member of an enumeration, from its source text."""
    return dict(re.findall(r"^ +(\w+) = \d+ +# (.*)$", inspect.getsource(enum), re.MULTILINE))


def _table(head: tuple[str, ...], rows) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return [*lines, *("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows), ""]


def _bits(low: int, width: int) -> str:
    return str(low) if width == 1 else f"{low + width - 1}:{low}"


def _reset(field) -> str:
    if field.reset_from:
        return f"`{field.reset_from}` of the configuration"
    if field.reset is None:
        return ""
    return f"{field.reset:#x}" if field.reset > 0xFFFFF else str(field.reset)


def _meaning(field) -> str:
    return field.description + (f" Values: {field.least} to {field.most}." if field.limited and field.writable else "")


def _register(register: Register, address: str) -> list[str]:
    out = [f"### {register.name}", "", f"{address}. {register.description}", ""]
    return out + _table(
        ("bits", "field", "access", "reset", "meaning"),
        (
            (_bits(field.low, field.width), field.name, field.access, _reset(field), _meaning(field))
            for field in reversed(register.fields)
        ),
    )


def render_registers(registers: RegisterMap) -> str:
    """The text of docs/registers.md."""
    out = [
        "# Registers",
        "",
        f"<!-- {NOTICE} Source: hdl/tiptoe_hdl/host/tiptoe.rdl -->",
        "",
        "AXI4-Lite, 32 bits of data, 20 bits of address. Only writes of a full word (all four strobes) to a writable",
        "register are taken, others are answered with SLVERR and change nothing; so is a read of an address without a",
        "register. Bits without a field read 0. A value that a field cannot take, or a bit outside of the fields, changes",
        "nothing: the write is answered with OKAY and told of by an error event BAD_REGISTER with the register's address; the",
        "registers of which ones clear bits take any value. Registers that configure the engine are changed while",
        "`CONTROL.ENABLE` is 0.",
        "",
    ]
    out += _table(
        ("address", "register", "access", "meaning"),
        (
            (
                f"{r.address:#05x}" + (f" + 4n, n < {r.count}" if r.count > 1 else ""),
                f"[{r.name}](#{r.name.lower()})",
                "/".join(word for word, on in (("read", r.readable), ("write", r.writable)) if on),
                re.split(r"(?<=[.]) ", r.description)[0],
            )
            for r in registers.registers
        ),
    )
    out += ["## Doorbells", "", registers.doorbell_description, ""]
    out += _table(
        ("address", "doorbell", "access", "meaning"),
        (
            (
                f"{registers.doorbell_base + d.address:#x} + {registers.doorbell_stride} · id",
                d.name,
                "write",
                d.description,
            )
            for d in registers.doorbells
        ),
    )
    out += ["## Registers in detail", ""]
    for register in registers.registers:
        address = f"Address {register.address:#05x}"
        if register.count > 1:
            address += f" + {register.stride}n, n < {register.count}"
        out += _register(register, address)
    notes = comments(Counter)
    out += ["## Counters", "", "`COUNTER[n]`, 32 bits each:", ""]
    out += _table(
        ("n", "address", "counter", "counts"),
        (
            (
                int(counter),
                f"{registers['COUNTER'].address + 4 * int(counter):#05x}",
                counter.name,
                notes.get(counter.name, ""),
            )
            for counter in Counter
        ),
    )
    return "\n".join(out)


def _fields(fields) -> list[str]:
    return _table(
        ("dword", "bits", "field"),
        (
            (f"{dword}–{dword + 1}" if low + width > 32 else dword, _bits(low, width), name)
            for name, dword, low, width in fields
        ),
    )


def _enum(title: str, enum) -> list[str]:
    notes = comments(enum)
    return [
        f"### {title}",
        "",
        *_table(
            ("value", "name", "note"), ((int(member.value), member.name, notes.get(member.name, "")) for member in enum)
        ),
    ]


def render_rings() -> str:
    """The text of docs/rings.md."""
    out = [
        "# Command and event rings",
        "",
        f"<!-- {NOTICE} Source: hdl/tiptoe_hdl/host/abi.py -->",
        "",
        RINGS_INTRODUCTION,
        "## Commands",
        "",
        COMMANDS_INTRODUCTION,
    ]
    out += _fields(abi.COMMAND_HEADER)
    for opcode, fields in abi.COMMANDS.items():
        out += [f"### {opcode.name} ({int(opcode)})", "", abi.COMMAND_TEXT[opcode], ""]
        if opcode in abi.ALWAYS_DONE:
            out += ["Always answered by COMMAND_DONE.", ""]
        if fields:
            out += _fields(fields)
    out += ["## Events", "", EVENTS_INTRODUCTION]
    out += _fields(abi.EVENT_TRAILER)
    for event, fields in abi.EVENTS.items():
        out += [f"### {event.name} ({int(event)})", "", abi.EVENT_TEXT[event], "", *_fields(fields)]
    out += ["## Values", ""]
    for title, enum in (
        ("State", State),
        ("Reason", Reason),
        ("Status", Status),
        ("Congestion", Congestion),
        ("ErrorCode", abi.ErrorCode),
    ):
        out += _enum(title, enum)
    out += ["## Pages of a TCB", "", TCB_INTRODUCTION]
    out += _table(
        ("page", "bits", "field"),
        ((number, _bits(low, width), name) for number, page in enumerate(abi.TCB_PAGES) for name, low, width in page),
    )
    out += ["## Host frames", "", FRAMES_INTRODUCTION]
    return "\n".join(out)

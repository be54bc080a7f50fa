"""Renders driver/include/tiptoe.h, a header for C11 and C++: the same constants for drivers in C."""

from ..messages import Congestion, Counter, Reason, State, Status
from . import abi
from .register_map import RegisterMap
from .render_python import NOTICE, field_masks


def _define(name: str, value: int, width: int = 0) -> str:
    text = f"0x{value:0{width}x}u" if width else f"{value}u"
    return f"#define {name:<44} {text}"


def _enum(prefix: str, enum) -> list[str]:
    lines = [f"/* {(enum.__doc__ or '').strip().splitlines()[0]} */", f"enum tiptoe_{prefix.lower()} {{"]
    lines += [f"\tTIPTOE_{prefix}_{member.name} = {int(member.value)}," for member in enum]
    return [*lines, "};", ""]


def _field_defines(kind: str, name: str, fields) -> list[str]:
    """DWORD, SHIFT and WIDTH of each field of a ring entry."""
    lines = []
    for field, dword, low, width in fields:
        stem = f"TIPTOE_{kind}_{name}_{field.upper()}"
        lines += [_define(f"{stem}_DWORD", dword), _define(f"{stem}_SHIFT", low), _define(f"{stem}_WIDTH", width)]
    return lines


def render_c(registers: RegisterMap) -> str:
    """The text of tiptoe.h."""
    out = [
        "/* Registers, commands and events of the Tiptoe TCP offload engine.",
        f" * {NOTICE}",
        " * SPDX-License-Identifier: BSD-2-Clause",
        " */",
        "#ifndef TIPTOE_H",
        "#define TIPTOE_H",
        "",
        "#include <stdint.h>",
        "",
        "/* Register addresses; arrays: address + 4 * n. */",
    ]
    out += [_define(f"TIPTOE_REG_{register.name}", register.address, 3) for register in registers.registers]
    out += [
        _define(f"TIPTOE_REG_{register.name}_COUNT", register.count)
        for register in registers.registers
        if register.count > 1
    ]
    out += ["", "/* Register fields: mask in place and lowest bit. */"]
    for _, stem, shift, mask in field_masks(registers.registers):
        out += [_define(f"TIPTOE_{stem}_MASK", mask, 8), _define(f"TIPTOE_{stem}_SHIFT", shift)]
    version = sum((field.reset or 0) << field.low for field in registers["VERSION"].fields)
    out += [
        "",
        _define("TIPTOE_ID_VALUE", registers["ID"].fields[0].reset or 0, 8),
        _define("TIPTOE_VERSION_VALUE", version, 8),
        "",
        "/* Doorbells of a connection, absolute ring positions. */",
        _define("TIPTOE_DOORBELL_BASE", registers.doorbell_base, 5),
        _define("TIPTOE_DOORBELL_STRIDE", registers.doorbell_stride),
    ]
    for doorbell in registers.doorbells:
        out.append(
            f"#define TIPTOE_DOORBELL_{doorbell.name}(id) \\\n"
            f"\t(TIPTOE_DOORBELL_BASE + TIPTOE_DOORBELL_STRIDE * (uint32_t)(id) + {doorbell.address}u)"
        )
    out += [
        "",
        "/* Rings. */",
        _define("TIPTOE_COMMAND_BYTES", abi.COMMAND_BYTES),
        _define("TIPTOE_EVENT_BYTES", abi.EVENT_BYTES),
        _define("TIPTOE_EVENT_PHASE_DWORD", abi.PHASE[0]),
        _define("TIPTOE_EVENT_PHASE_SHIFT", abi.PHASE[1]),
        _define("TIPTOE_HOST_FRAME_SLOT_BYTES", abi.HOST_FRAME_SLOT_BYTES),
        _define("TIPTOE_HOST_FRAME_OFFSET", 2),
        "",
    ]
    for prefix, enum in (
        ("STATE", State),
        ("REASON", Reason),
        ("STATUS", Status),
        ("CONGESTION", Congestion),
        ("OPCODE", abi.Opcode),
        ("EVENT", abi.EventType),
        ("ERROR", abi.ErrorCode),
        ("COUNTER", Counter),
    ):
        out += _enum(prefix, enum)
    out += ["/* Commands: fields as little-endian dwords; 64-bit fields have their low dword first. */"]
    out += _field_defines("CMD", "HEADER", abi.COMMAND_HEADER)
    for opcode, fields in abi.COMMANDS.items():
        out += _field_defines("CMD", opcode.name, fields)
    out += ["", "/* Events. */"]
    out += _field_defines("EVT", "TRAILER", abi.EVENT_TRAILER)
    for event, fields in abi.EVENTS.items():
        out += _field_defines("EVT", event.name, fields)
    out += ["", "/* Pages of READ_TCB: fields of COMMAND_DONE's value. */"]
    for number, page in enumerate(abi.TCB_PAGES):
        for name, low, width in page:
            stem = f"TIPTOE_TCB_{name.upper()}"
            out += [_define(f"{stem}_PAGE", number), _define(f"{stem}_SHIFT", low), _define(f"{stem}_WIDTH", width)]
    out += [
        "",
        """\
/* Read a field of at most 32 bits of an event, or put one into a command that was zeroed. */
#define TIPTOE_GET(entry, field) \\
	(((entry)[field##_DWORD] >> field##_SHIFT) & (uint32_t)((UINT64_C(1) << field##_WIDTH) - 1))
#define TIPTOE_PUT(entry, field, value) \\
	((entry)[field##_DWORD] |= (uint32_t)((uint64_t)(value) << field##_SHIFT))
/* The same for fields of 33 to 64 bits, which begin at bit 0. */
#define TIPTOE_PUT64(entry, field, value) \\
	((entry)[field##_DWORD] |= (uint32_t)(value), \\
	(entry)[field##_DWORD + 1] |= (uint32_t)((uint64_t)(value) >> 32))
#define TIPTOE_GET64(entry, field) \\
	((entry)[field##_DWORD] | (uint64_t)(entry)[field##_DWORD + 1] << 32)
/* A field of the page that READ_TCB gave. */
#define TIPTOE_GET_TCB(value, field) \\
	((uint32_t)((value) >> field##_SHIFT & ((UINT64_C(1) << field##_WIDTH) - 1)))""",
        "",
        "#endif",
    ]
    return "\n".join(out) + "\n"

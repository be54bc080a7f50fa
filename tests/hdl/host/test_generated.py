"""Generated files are what their sources say; packing and unpacking follow the tables; the C header compiles and works."""

import subprocess

import pytest

from tiptoe_driver.hardware import abi_gen
from tiptoe_hdl.host import abi
from tiptoe_hdl.host.generate import ROOT, main, outputs, stale
from tiptoe_hdl.host.register_map import register_map
from tiptoe_hdl.messages import Counter, Reason, State, Status


def test_no_drift():
    assert stale() == [], "run: python -m tiptoe_hdl.host.generate"


def test_drift_is_found(tmp_path):
    for path, text in outputs().items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert stale(tmp_path) == []
    changed = tmp_path / "driver/tiptoe_driver/hardware/abi_gen.py"
    changed.write_text(changed.read_text().replace("REG_CONTROL = 0x010", "REG_CONTROL = 0x011"))
    (tmp_path / "docs/rings.md").unlink()
    assert stale(tmp_path) == ["driver/tiptoe_driver/hardware/abi_gen.py", "docs/rings.md"]


def test_check_reports_and_fails(capsys, monkeypatch):
    monkeypatch.setattr("tiptoe_hdl.host.generate.stale", lambda: ["docs/rings.md"])
    assert main(["--check"]) == 1
    assert capsys.readouterr().out == "stale: docs/rings.md\n"


def test_addresses_and_fields():
    for register in register_map().registers:
        assert getattr(abi_gen, f"REG_{register.name}") == register.address
    assert abi_gen.CONTROL_RST_UNKNOWN == 1 << 3 and abi_gen.CONTROL_RST_UNKNOWN_SHIFT == 3
    assert abi_gen.LIMITS_MAX_FRAME_BYTES == 0xFFF << 16
    assert abi_gen.DOORBELL_BASE == 0x80000 and abi_gen.DOORBELL_STRIDE == 8 and abi_gen.DOORBELL_RCV == 4


def test_register_map_has_a_place_for_every_counter():
    register = register_map()["COUNTER"]
    assert register.count == len(Counter) and [int(counter) for counter in Counter] == list(range(len(Counter)))


def test_registers_do_not_overlap():
    taken = [
        register.address + register.stride * index
        for register in register_map().registers
        for index in range(register.count)
    ]
    assert len(set(taken)) == len(taken) and max(taken) < 0x400
    for register in register_map().registers:
        bits = [bit for field in register.fields for bit in range(field.low, field.low + field.width)]
        assert len(set(bits)) == len(bits)


@pytest.mark.parametrize(
    "theirs, ours",
    [
        (abi_gen.State, State),
        (abi_gen.Reason, Reason),
        (abi_gen.Status, Status),
        (abi_gen.Opcode, abi.Opcode),
        (abi_gen.EventType, abi.EventType),
        (abi_gen.ErrorCode, abi.ErrorCode),
        (abi_gen.Counter, Counter),
    ],
)
def test_enumerations(theirs, ours):
    assert {member.name: member.value for member in theirs} == {member.name: int(member.value) for member in ours}


def lay_out(fields, values):
    """An entry by the tables, as one integer."""
    word = 0
    for name, dword, low, width in fields:
        assert values[name] >> width == 0
        word |= values[name] << (32 * dword + low)
    return word


@pytest.mark.parametrize(
    "tables, header, bits", [(abi.COMMANDS, abi.COMMAND_HEADER, 512), (abi.EVENTS, abi.EVENT_TRAILER, 256)]
)
def test_fields_do_not_overlap(tables, header, bits):
    for key, fields in tables.items():
        taken = [
            bit
            for _, dword, low, width in (*header, *fields)
            for bit in range(32 * dword + low, 32 * dword + low + width)
        ]
        assert len(set(taken)) == len(taken) and max(taken) < bits, key


@pytest.mark.parametrize("opcode", abi.Opcode)
def test_pack(opcode, rng):
    fields = abi.COMMANDS[opcode]
    pack = getattr(abi_gen, f"pack_{opcode.name.lower()}")
    for values in (
        {name: rng.getrandbits(width) for name, _, _, width in fields},
        {name: (1 << width) - 1 for name, _, _, width in fields},
    ):
        expected = lay_out((*abi.COMMAND_HEADER, *fields), {**values, "opcode": opcode, "tag": 0xBEEF})
        assert pack(0xBEEF, **values) == expected.to_bytes(64, "little")
    for name, _, _, width in fields:
        for wrong in (1 << width, -1):
            with pytest.raises(ValueError, match=f"{name} = {wrong} does not fit {width} bits"):
                pack(0, **{**values, name: wrong})
    with pytest.raises(ValueError, match="tag = 65536 does not fit 16 bits"):
        pack(65536, **values)


@pytest.mark.parametrize("event", abi.EVENTS)
@pytest.mark.parametrize("phase", [0, 1])
def test_unpack(event, phase, rng):
    values = {name: rng.getrandbits(width) for name, _, _, width in abi.EVENTS[event]}
    word = lay_out((*abi.EVENTS[event], *abi.EVENT_TRAILER), {**values, "type": event, "phase": phase})
    ring = b"\xff" * 32 + word.to_bytes(32, "little") + b"\xff" * 32
    assert abi_gen.unpack_event(ring, 32)._asdict() == values
    assert abi_gen.event_phase(ring, 32) == phase


def test_unknown_event():
    with pytest.raises(ValueError, match="unknown event type 0"):
        abi_gen.unpack_event(bytes(32))


C_TEST = """
#include "tiptoe.h"
#include <stdio.h>
int main(void) {
    uint32_t c[16] = {0}, e[8] = {EVENT};
    unsigned n;
    TIPTOE_PUT(c, TIPTOE_CMD_HEADER_OPCODE, TIPTOE_OPCODE_OPEN);
    TIPTOE_PUT(c, TIPTOE_CMD_HEADER_TAG, 0xbeefu);
    TIPTOE_PUT(c, TIPTOE_CMD_OPEN_TID, 0x00a50003u);
    TIPTOE_PUT(c, TIPTOE_CMD_OPEN_FPORT, 65535u);
    TIPTOE_PUT64(c, TIPTOE_CMD_OPEN_DMAC, UINT64_C(0x02005e005301));
    TIPTOE_PUT(c, TIPTOE_CMD_OPEN_USE_NEXT_HOP, 1u);
    for (n = 0; n < 16; n++) printf("%08x", c[n]);
    printf(" %u %u %u %x", TIPTOE_GET(e, TIPTOE_EVT_CONNECTION_STATE), TIPTOE_GET(e, TIPTOE_EVT_CONNECTION_TERMINAL),
           TIPTOE_GET(e, TIPTOE_EVT_CONNECTION_REASON), TIPTOE_DOORBELL_RCV(3));
    return 0;
}
"""


@pytest.mark.parametrize("language, standard", [("c", "c11"), ("c++", "c++14")])
def test_c_header(language, standard, tmp_path):
    source, program = tmp_path / "t.c", tmp_path / "t"
    fields = abi.EVENTS[abi.EventType.CONNECTION]
    word = lay_out(
        fields, {name: (1 << width) - 1 for name, _, _, width in fields} | {"state": 3, "terminal": 1, "reason": 1}
    )
    source.write_text(C_TEST.replace("EVENT}", ", ".join(f"{word >> 32 * n & 0xFFFFFFFF:#x}u" for n in range(8)) + "}"))
    subprocess.run(
        [
            "g++" if language == "c++" else "gcc",
            "-x",
            language,
            f"-std={standard}",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-pedantic",
            "-I",
            ROOT / "driver/include",
            source,
            "-o",
            program,
        ],
        check=True,
    )
    command, *fields = subprocess.run([program], check=True, capture_output=True, text=True).stdout.split()
    expected = abi_gen.pack_open(
        0xBEEF,
        tid=0x00A50003,
        laddr=0,
        faddr=0,
        lport=0,
        fport=65535,
        dmac=0x02005E005301,
        use_next_hop=1,
        next_hop=0,
        mss=0,
        rcv_scale=0,
        ecn=0,
        faddr6_low=0,
        faddr6_high=0,
    )
    assert b"".join(int(command[at : at + 8], 16).to_bytes(4, "little") for at in range(0, 128, 8)) == expected
    assert fields == ["3", "1", "1", f"{0x80000 + 3 * 8 + 4:x}"]


def test_every_command_and_event_is_documented():
    for opcode in abi.Opcode:
        assert abi.COMMAND_TEXT[opcode]
    for event in abi.EventType:
        assert abi.EVENT_TEXT[event]
    text = outputs()["docs/registers.md"]
    for counter in Counter:
        assert f"| {counter.name} |" in text

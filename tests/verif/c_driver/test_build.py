"""The driver in C compiles without a warning for this machine and for RV32IM, freestanding; headers are C11 and C++17."""

from __future__ import annotations

import contextlib
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tiptoe_board import firmware
from tiptoe_verif.c_driver import DRIVER, FIRMWARE, HEADERS, Error, What, compile_command
from tiptoe_verif.paths import ROOT
from tiptoe_verif.sim.toolchain import ToolError

STRICT = ["-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only", f"-I{HEADERS}", f"-I{DRIVER}", f"-I{FIRMWARE}"]
LIBRARY = {"memcpy", "memset", "memcmp"}
SUPPORT = re.compile(r"__(u|div|mod|mul|ash|lsh)\w*|_?_?firmware_\w+|_GLOBAL_OFFSET_TABLE_")
"""Of the compiler's own run time: 64-bit arithmetic."""
TEXT_MOST = 48 << 10


def targets() -> dict[str, str]:
    """Compilers by the name of what they compile for."""
    found = {"native": "gcc -Os"}
    with contextlib.suppress(ToolError):  # there is none
        found["rv32im"] = shlex.join([*firmware.compiler(), "-Os"])
    return found


@pytest.mark.parametrize("header", ["tiptoe.h", "device.h", "toe.h", "apps/apps.h", "firmware.h"])
@pytest.mark.parametrize("compiler", [["cc", "-std=c11", "-x", "c"], ["c++", "-std=c++17", "-x", "c++"]])
def test_headers_compile(compiler: list[str], header: str) -> None:
    source = f'#include "{header}"\n#include "{header}"\nint f(void) {{ return 0; }}\n'
    subprocess.run([*compiler, *STRICT, "-"], input=source, text=True, check=True)


@pytest.mark.parametrize("prefix, names", [("toe_error", Error), ("toe_what", What)])
def test_names_of_the_header_and_of_python_agree(prefix: str, names) -> None:
    text = (DRIVER / "toe.h").read_text()
    body = re.search(rf"enum {prefix} \{{(.*?)\}};", text, re.S)
    assert body is not None
    assert {name: int(value) for name, value in re.findall(r"TOE_(\w+) = (\d+)", body[1])} == {
        member.name: member.value for member in names
    }


def sizes(objects: list[Path]) -> dict[str, int]:
    """Bytes of each section's kind, of ELF files of 32 or 64 bits."""
    found = {"text": 0, "data": 0, "bss": 0}
    for path in objects:
        data = path.read_bytes()
        wide = data[4] == 2
        at, form = (40, 8) if wide else (32, 4)
        table = int.from_bytes(data[at : at + form], "little")
        step, count = (int.from_bytes(data[n : n + 2], "little") for n in ((58, 60) if wide else (46, 48)))
        for n in range(count):
            header = data[table + n * step : table + (n + 1) * step]
            kind = int.from_bytes(header[4:8], "little")
            flags = int.from_bytes(header[8 : 8 + form], "little")
            size = int.from_bytes(header[8 + 3 * form : 8 + 4 * form], "little")
            if flags & 2:  # allocated
                found["bss" if kind == 8 else "data" if flags & 1 else "text"] += size
    return found


@pytest.mark.parametrize("target", ["native", "rv32im"])
@pytest.mark.parametrize("connections", [16, 256])
def test_compiles_freestanding(
    tmp_path: Path, target: str, connections: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing but memcpy, memset and memcmp is missing. The board's structure is a static variable: its size is .bss."""
    compiler = targets().get(target)
    if compiler is None:
        pytest.skip("no compiler for RISC-V: pip install ziglang, or gcc-riscv64-unknown-elf (Debian)")
    board = tmp_path / "board.c"
    board.write_text('#include "firmware.h"\nextern struct firmware board;\nstruct firmware board;\n')
    command = compile_command(compiler, connections)
    sources = [word for word in command if word.endswith(".c")] + [str(board)]
    options = [word for word in command if not word.endswith(".c")]
    objects = []
    for number, source in enumerate(sources):
        objects.append(tmp_path / f"{number}.o")
        subprocess.run([*options, "-c", source, "-o", str(objects[-1])], check=True)
    measured = sizes(objects)
    with capsys.disabled():
        print(
            f"\n{target}, {connections} connections: " + ", ".join(f".{kind} {size}" for kind, size in measured.items())
        )
    assert measured["text"] < TEXT_MOST and measured["data"] == 0
    assert measured["bss"] < connections * 600 + (8 << 10)
    if target == "native":
        listing = subprocess.run(["nm", "-u", *map(str, objects)], capture_output=True, text=True, check=True).stdout
        wanted = set(re.findall(r"^ +U (\w+)$", listing, re.M))
        defined = subprocess.run(
            ["nm", "--defined-only", *map(str, objects)], capture_output=True, text=True, check=True
        ).stdout
        own = set(re.findall(r" [A-Za-z] (\w+)$", defined, re.M))
        assert {name for name in wanted - own if not SUPPORT.fullmatch(name)} <= LIBRARY


def test_guide_quotes_the_code() -> None:
    """The C excerpts of the programmer's guide are lines of driver/c or examples/c; ``...`` stands for some left out."""
    guide = (ROOT / "docs" / "driver.md").read_text()
    files = sorted([*DRIVER.rglob("*.[ch]"), *FIRMWARE.rglob("*.[ch]")])
    codes = [re.sub(r"\s+", " ", path.read_text()) for path in files]
    excerpts = re.findall(r"^```c$(.*?)^```$", guide, re.S | re.M)
    assert len(excerpts) >= 6

    def quotes(code: str, parts: list[str]) -> bool:
        at = 0
        for part in parts:
            at = code.find(part, at)
            if at < 0:
                return False
        return True

    for excerpt in excerpts:
        parts = [re.sub(r"\s+", " ", part).strip() for part in excerpt.split("...")]
        assert any(quotes(code, parts) for code in codes), f"in no file: {excerpt}"

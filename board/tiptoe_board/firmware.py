"""The processor's program: C sources to the image of its ROM, for the memory map that LiteX wrote; kept by a hash."""

from __future__ import annotations

import importlib.util
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tiptoe_verif.c_driver import DRIVER, HEADERS, make_variable
from tiptoe_verif.paths import CACHE, ROOT
from tiptoe_verif.sim.toolchain import ToolError, cached_dir, digest

SOURCES = ROOT / "board" / "firmware"
"""Start, platform, programs."""
MAP = ("csr.h", "soc.h", "mem.h", "dram.h", "regions.ld")
"""What the program wants of the SoC's folder."""

_COMMON = ("start.S", "platform.c", "memory.c", "dram.c")
_FLAGS = (
    "-std=c11", "-Os", "-ffreestanding", "-fno-builtin", "-fno-pic", "-ffunction-sections", "-fdata-sections",
    "-fno-sanitize=all", "-fno-stack-protector", "-msmall-data-limit=0", "-g0", "-Wall", "-Wextra", "-Werror",
    "-Wl,--gc-sections",
)  # fmt: skip


@dataclass(frozen=True)
class Firmware:
    """A program for one memory map.

    Attributes
    ----------
    rom : Path
        Its image: a word of eight hex digits a line.
    rom_bytes, ram_bytes : int
        Code and constants with the initial data; data, without the stack.
    """

    rom: Path
    rom_bytes: int
    ram_bytes: int


def compiler() -> list[str]:
    """A C compiler for RV32IM as the beginning of a command: zig of the environment, or Debian's gcc, or :exc:`ToolError`."""
    if importlib.util.find_spec("ziglang"):
        return [
            sys.executable, "-m", "ziglang", "cc", "-target", "riscv32-freestanding-none", "-mcpu=generic_rv32+m",
        ]  # fmt: skip
    if gcc := shutil.which("riscv64-unknown-elf-gcc"):
        return [gcc, "-march=rv32im_zicsr", "-mabi=ilp32"]
    raise ToolError(
        "no C compiler for RISC-V: make compiler (installs zig from the package index, 100 MB), "
        "or install gcc-riscv64-unknown-elf (Debian)"
    )


def build(program: Sequence[Path], soc: Path, folders: Sequence[Path] = ()) -> Firmware:
    """Compile and link ``program`` for the SoC whose folder ``elaborate`` has filled.

    Parameters
    ----------
    program
        C files, besides start, platform and memory functions.
    folders
        Searched for headers, besides the driver's.
    """
    command = compiler()
    files = [*(SOURCES / name for name in _COMMON), *program]
    headers = [path for folder in (SOURCES, HEADERS, *folders) for path in sorted(folder.glob("*.h"))]
    maps = {name: _without_comments((soc / name).read_text()) for name in MAP}
    texts = [path.read_text() for path in (*files, *headers, SOURCES / "firmware.ld")]
    key = digest(*command, *_FLAGS, *(path.name for path in files), *texts, *maps.values())
    with cached_dir("firmware", program[0].stem, key) as (folder, complete):
        rom, elf = folder / "rom.hex", folder / "firmware.elf"
        if not complete:
            for name, text in maps.items():
                (folder / name).write_text(text)
            searched = [f"-I{path}" for path in (folder, SOURCES, HEADERS, *folders)]
            linking = [f"-L{folder}", f"-Wl,-T,{SOURCES / 'firmware.ld'}", "-o", str(elf)]
            libraries = [] if "ziglang" in command else ["-nostdlib", "-lgcc"]  # zig's own come by themselves
            caches = {f"ZIG_{kind}_CACHE_DIR": str(CACHE / "zig") for kind in ("GLOBAL", "LOCAL")}
            done = subprocess.run(
                [*command, *_FLAGS, *searched, *map(str, files), *linking, *libraries], capture_output=True, text=True,
                cwd=folder, env=os.environ | caches,
            )  # fmt: skip
            (folder / "compiler.log").write_text(done.stderr)
            if done.returncode:
                raise ToolError(f"the C compiler failed ({folder / 'compiler.log'}):\n{done.stderr[-2000:]}")
            image, ram = load_image(elf.read_bytes())
            rom.write_text("".join(f"{word:08x}\n" for word in image))
            (folder / "ram").write_text(str(ram))
        return Firmware(rom, 4 * len(rom.read_text().split()), int((folder / "ram").read_text()))


def build_server(soc: Path) -> Firmware:
    """What a board's ROM has: the C driver with its servers (serve.c)."""
    names = make_variable("TOE_SOURCES") + make_variable("TOE_APPS")
    program = [SOURCES / "serve.c", SOURCES / "device.c", *(DRIVER / name for name in names)]
    return build(program, soc, [DRIVER, DRIVER / "apps"])


def load_image(elf: bytes) -> tuple[list[int], int]:
    """Words of the ROM from address 0 of an ELF file of 32 bits (its segments at their load addresses), and bytes of memory."""
    if elf[:6] != b"\x7fELF\x01\x01":
        raise ToolError("not an ELF file of 32 bits, little-endian")
    table, size, count = *struct.unpack_from("<I", elf, 28), *struct.unpack_from("<HH", elf, 42)
    image, ram = bytearray(), 0
    for at in range(table, table + size * count, size):
        kind, offset, address, load, in_file, in_memory = struct.unpack_from("<6I", elf, at)
        if kind != 1:
            continue
        if address != load or not in_file:
            ram += in_memory
        if in_file:
            image = image.ljust(load + in_file, b"\0")
            image[load : load + in_file] = elf[offset : offset + in_file]
    image = image.ljust(-(-len(image) // 4) * 4, b"\0")
    return list(struct.unpack(f"<{len(image) // 4}I", image)), ram


def _without_comments(text: str) -> str:
    """LiteX's headers tell the time of day."""
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("//"))

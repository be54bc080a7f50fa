"""Compiles the interposer, and tells which programs it cannot be loaded into."""

from __future__ import annotations

import os
import shutil
import stat
import struct
import subprocess
from pathlib import Path

from ..sim.toolchain import ToolError, cached_dir, digest, require

PARTS = sorted(Path(__file__).with_name("interposer").glob("*.[ch]"))
"""The interposer's sources: calls.c has what is interposed."""
_FLAGS = ["-std=c11", "-O2", "-Wall", "-Wextra", "-fPIC", "-shared"]
_PT_INTERP = 3


class ProgramError(OSError):
    """The program cannot be run; ``code`` is the exit code a shell would give."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def build() -> Path:
    """The compiled interposer; at once if it is there already."""
    compiler = shutil.which("gcc") or shutil.which("cc") or require("gcc")
    texts = [text for part in PARTS for text in (part.name, part.read_text())]
    with cached_dir("preload", "interposer", digest(*texts, compiler, *_FLAGS)) as (folder, complete):
        library = folder / "libtiptoe_preload.so"
        if not complete:
            sources = [str(part) for part in PARTS if part.suffix == ".c"]
            command = [compiler, *_FLAGS, "-o", str(library), *sources, "-ldl"]
            result = subprocess.run(command, capture_output=True, text=True)
            if result.returncode:
                (folder / "compiler.log").write_text(result.stderr)
                raise ToolError(f"the C compiler failed ({folder / 'compiler.log'})")
    return library


def find(program: str) -> str:
    """Path of a program that the interposer can be loaded into; :exc:`ProgramError` if there is none."""
    path = shutil.which(program)
    if path is None:
        if os.path.exists(program) and os.sep in program:
            raise ProgramError(f"{program}: cannot be executed", 126)
        raise ProgramError(f"{program}: not found", 127)
    _check(Path(path), program)
    return path


def _check(path: Path, program: str, depth: int = 0) -> None:
    """Raise if the dynamic loader would not load the interposer into it."""
    try:
        with path.open("rb") as file:
            head = file.read(4096)
            status = os.fstat(file.fileno())
    except OSError:
        return  # executable, but not readable: we shall see
    if head.startswith(b"#!") and depth < 4:
        words = head[2:].split(b"\n", 1)[0].decode(errors="replace").split()
        if words and os.path.basename(words[0]) == "env":
            words = [shutil.which(word) or "" for word in words[1:] if not word.startswith("-")][:1]
        if words and os.path.exists(words[0]):
            _check(Path(words[0]), program, depth + 1)
        return
    privileged = bool(status.st_mode & stat.S_ISUID) and status.st_uid != os.geteuid()
    privileged |= bool(status.st_mode & stat.S_ISGID) and status.st_gid != os.getegid()
    if privileged or (os.geteuid() and _has_capabilities(path)):
        raise ProgramError(f"{program}: a setuid program, which nothing can be interposed in", 126)
    if head.startswith(b"\x7fELF") and len(head) > 64:
        with Path("/proc/self/exe").open("rb") as file:
            ours = file.read(20)
        if head[4:6] != ours[4:6] or head[18:20] != ours[18:20]:
            raise ProgramError(f"{program}: of another architecture than the interposer", 126)
        if not _has_interpreter(path, head):
            raise ProgramError(f"{program}: statically linked, nothing can be interposed in it", 126)


def _has_capabilities(path: Path) -> bool:
    try:
        return bool(os.getxattr(path, "security.capability"))
    except OSError:
        return False


def _has_interpreter(path: Path, head: bytes) -> bool:
    """Whether an ELF file names a dynamic loader."""
    wide, order = head[4] == 2, "<" if head[5] == 1 else ">"
    offset = struct.unpack_from(order + ("Q" if wide else "I"), head, 32 if wide else 28)[0]
    size, count = struct.unpack_from(order + "HH", head, 54 if wide else 42)
    with path.open("rb") as file:
        file.seek(offset)
        table = file.read(size * count)
    return any(struct.unpack_from(order + "I", table, size * n)[0] == _PT_INTERP for n in range(len(table) // size))

"""The commands that the pages name exist, with the options named: `tiptoe ...`, `make ...`, `python -m ...`."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import typer.main

from tiptoe_verif.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(?:sh|console)?\n(.*?)^```$", flags=re.M | re.S)
INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
COMMANDS = typer.main.get_command(app).commands
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z]+):", MAKEFILE, flags=re.M))
VARIABLES = set(re.findall(r"\$\((?:if \$\()?([A-Z]+)", MAKEFILE))
FRONT = re.compile(r"^(?:sudo|unshare|-rn|\$|\w+=\S+)$")
"""What may stand before a command."""
ENDS = {"|", "&", ">", ";", "#", "--"}


def found(text: str) -> list[list[str]]:
    """The words of each command of a page, from the program's name on."""
    blocks = BLOCK.findall(text)
    rest = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    lines += [line[4:] for line in rest.splitlines() if line.startswith("    ")]
    lines += [code.replace("\n", " ") for code in INLINE.findall(rest)]
    commands = []
    for line in lines:
        try:
            words = shlex.split(line, comments=True)
        except ValueError:  # a table, a picture
            continue
        while words and FRONT.match(words[0]):
            words = words[1:]
        if len(words) > 1 and words[0].rpartition("/")[2] in ("tiptoe", "make", "python"):
            commands.append([words[0].rpartition("/")[2], *words[1:]])
    return commands


def check_tiptoe(words: list[str]) -> str:
    """What is wrong, or nothing. ``a|b`` are two commands, capitals stand for any, brackets for what may be left out."""
    if words[0].startswith("--") or words[0].isupper():
        return "" if words[0].isupper() or words[0] in ("--version", "--help", "--install-completion") else words[0]
    names = words[0].split("|")
    if unknown := [name for name in names if name not in COMMANDS]:
        return f"no command {unknown[0]}"
    options = {flag for name in names for parameter in COMMANDS[name].params for flag in parameter.opts}
    options |= {flag for name in names for parameter in COMMANDS[name].params for flag in parameter.secondary_opts}
    for word in words[1:]:
        if word in ENDS:
            break
        flag = word.strip("[]").partition("=")[0]
        if flag.startswith("-") and flag not in options | {"--help"}:
            return f"{words[0]} has no option {flag}"
    return ""


def check_make(words: list[str]) -> str:
    """Targets and variables of the Makefile; of another one, that it is there."""
    if words[0] == "-C":
        return "" if (ROOT / words[1] / "Makefile").exists() else f"no Makefile in {words[1]}"
    for word in words:
        name, equals, _ = word.partition("=")
        if word in ENDS:
            break
        if name.strip("[]") not in (VARIABLES if equals else TARGETS):
            return f"make knows no {name}"
    return ""


def check_python(words: list[str]) -> str:
    """A module that is there, or a file."""
    if words[0] == "-m":
        return "" if importlib.util.find_spec(words[1]) else f"no module {words[1]}"
    return "" if not words[0].endswith(".py") or (ROOT / words[0]).exists() else f"no file {words[0]}"


CHECKS = {"tiptoe": check_tiptoe, "make": check_make, "python": check_python}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_the_page_exist(page: Path) -> None:
    wrong = {" ".join(command): CHECKS[command[0]](command[1:]) for command in found(page.read_text())}
    assert not {command: why for command, why in wrong.items() if why}


def test_commands_are_found_and_wrong_ones_noticed() -> None:
    assert sum(len(found(page.read_text())) for page in PAGES) > 80
    lines = ["sudo .venv/bin/tiptoe fly", "make tset  # all", "X=1 make soak ARG=a", "python -m tiptoe_verif.x"]
    page = "\n".join(["`tiptoe live --lisen 80=echo` and", "```", *lines, "```", ""])
    assert [CHECKS[program](words) for program, *words in found(page)] == [
        "no command fly",
        "make knows no tset",
        "make knows no ARG",
        "no module tiptoe_verif.x",
        "live has no option --lisen",
    ]

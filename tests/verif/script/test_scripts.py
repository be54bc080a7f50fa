"""The scripts in tests/scripts, whose expectations are those of the RFCs, on the engine."""

from pathlib import Path

import pytest

from tiptoe_verif.script.command import play

FOLDER = Path(__file__).parents[2] / "scripts"


SCRIPTS = [pytest.param(path, id=path.stem) for path in sorted(FOLDER.glob("*.pkt"))]


@pytest.mark.parametrize("path", SCRIPTS)
def test_script(path, library, out_dir):
    result = play(path, library=library, pcap=out_dir / "run.pcap")
    assert result.status == "ok", result
    assert not [note for note in result.notes if "does not expect" in note]


def test_the_one_in_the_docs(library, tmp_path):
    page = (FOLDER.parents[1] / "docs" / "script.md").read_text()
    path = tmp_path / "docs.pkt"
    path.write_text(page.split("```")[1])
    assert play(path, library=library).status == "ok"

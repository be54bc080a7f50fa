"""``tiptoe_litex``: the example SoC (examples/litex/soc.py) is elaborated, and its top fits the engine port for port."""

import re
from pathlib import Path

import pytest
from litex.build.sim.platform import SimPlatform
from litex.soc.integration.soc_core import SoCCore
from migen.fhdl.structure import _Assign

from tests.board.litex_example import EXAMPLE, PATH
from tests.verif.exported import CONFIG
from tiptoe_litex import Tiptoe
from tiptoe_verif.export import Choice
from tiptoe_verif.export.choice import Port
from tiptoe_verif.paths import ROOT
from tiptoe_verif.sim.toolchain import run_verilator

pytestmark = pytest.mark.xdist_group("export")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("litex")
    return EXAMPLE.write_verilog(folder), folder


def stub(ports: list[Port]) -> str:
    """A module with the engine's ports and nothing inside."""
    lines = ",\n".join(f"  {port.direction}put [{port.width - 1}:0] {port.name}" for port in ports)
    return f"module tiptoe_mac_engine (\n{lines}\n);\nendmodule\n"


def said_of_ports(folder: Path, work: Path, ports: list[Port]) -> list[str]:
    """What Verilator says of the connections between the top and the engine: missing, unknown, of another width."""
    (work / "tiptoe_mac_engine.v").write_text(stub(ports))
    arguments = ["--lint-only", "--timing", "-Wno-fatal", "--top-module", "soc"]
    run_verilator([*arguments, str(folder / "soc.v"), str(work / "tiptoe_mac_engine.v")], work)
    lines = (work / "verilator.log").read_text().splitlines()
    return [line for line in lines if re.match(r"%\S+-PIN|%.*(port|pin) connection", line)]


def test_example_connects_every_port_of_the_engine(built, tmp_path):
    _, folder = built
    assert said_of_ports(folder, tmp_path, Choice(config=CONFIG, queues=True).ports) == []


@pytest.mark.parametrize("name, width", [("m_axi_awaddr", 40), ("s_axis_rx_tkeep", 8), ("added", 1)])
def test_a_port_of_another_width_or_none_would_be_seen(built, tmp_path, name, width):
    _, folder = built
    ports = [port for port in Choice(config=CONFIG, queues=True).ports if port.name != name]
    assert said_of_ports(folder, tmp_path, [*ports, Port(name, "in" if name != "m_axi_awaddr" else "out", width)])


def test_sources_of_the_platform_are_the_exported_ones(built):
    soc, folder = built
    sources = [Path(name) for name, *_ in soc.platform.sources]
    assert sources == [folder / "tiptoe" / name for name in (folder / "tiptoe" / "files.f").read_text().split()]


def test_two_engines_of_one_name_are_refused_and_of_two_names_are_not(built, tmp_path, monkeypatch):
    """Verilator and synthesis would take one module for both; the same engine twice is one source."""

    class Platform:
        sources: list[tuple[str, str]] = []

        def add_source(self, name):
            self.sources.append((name, "verilog"))

    def write(choice, folder):
        (folder / "rtl").mkdir(parents=True, exist_ok=True)
        (folder / "rtl" / f"{choice.top}.v").write_text(repr(choice.config))

    monkeypatch.setattr("tiptoe_litex.engine.export", write)
    wider, platform = CONFIG.with_(data_width=64), Platform()
    Tiptoe(CONFIG).add_sources(platform, tmp_path / "a")
    Tiptoe(CONFIG).add_sources(platform, tmp_path / "b")
    Tiptoe(wider, name="wider").add_sources(platform, tmp_path / "a")
    assert [Path(name).name for name, _ in platform.sources] == ["tiptoe_mac_engine.v", "wider.v"]
    for folder in ("c", "a"):
        with pytest.raises(ValueError, match="names of their own"):
            Tiptoe(wider).add_sources(platform, tmp_path / folder)


def test_a_processor_gets_the_interrupt():
    """As LiteX's own modules' do: a number of its own, a constant for software."""
    soc = SoCCore(
        SimPlatform("SIM", EXAMPLE.PINS), 50e6, cpu_type="vexriscv", integrated_rom_size=4096, uart_name="stub"
    )
    soc.tiptoe = Tiptoe(CONFIG)
    soc.irq.add("tiptoe")
    soc.finalize()
    number = soc.constants["TIPTOE_INTERRUPT"]
    (driven,) = [each.l for each in soc.get_fragment().comb if isinstance(each, _Assign) and each.r is soc.tiptoe.irq]
    assert (driven.value, driven.start, driven.stop) == (soc.cpu.interrupt, number, number + 1)


def test_places_on_the_bus(built):
    soc, _ = built
    regions = {name: (region.origin, region.size) for name, region in soc.bus.regions.items()}
    assert regions["tiptoe"] == (0xE000_0000, 1 << 20) and regions["host_memory"] == (0x4000_0000, 1 << 16)
    assert {"tiptoe", "uartbone"} <= set(soc.bus.masters)


def test_the_page_shows_the_example_as_it_is():
    (shown,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / "integration.md").read_text(), flags=re.S | re.M)
    assert shown in PATH.read_text()

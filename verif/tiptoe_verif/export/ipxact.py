"""The exported engine as an IP-XACT component (IEEE 1685-2014): ports, bus interfaces, registers, files.

PeakRDL makes the memory map from the SystemRDL source; what is around it is of the choice. Buses have Arm's names for AMBA 4
(vendor amba.com), whose definitions Arm gives away and IP-XACT tools bring along; they are not part of this.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from .choice import Choice, Port
from .fusesoc import version

NAMESPACE = "http://www.accellera.org/XMLSchema/IPXACT/1685-2014"
_HOST_MEMORY = "host_memory"
_BUSES = {
    "s_axil": ("AXI4-Lite", "r0p0_0", "slave"),
    "m_axi": ("AXI4", "r0p0_0", "master"),
    "s_axis_rx": ("AXI4Stream", "r0p0_1", "slave"),
    "m_axis_tx": ("AXI4Stream", "r0p0_1", "master"),
}
"""The prefix of an interface's ports to the bus' name and version, and what the engine is there."""


def ipxact(choice: Choice, sources: Sequence[str]) -> str:
    """The component; ``sources`` are the Verilog files."""
    ElementTree.register_namespace("ipxact", NAMESPACE)
    root = ElementTree.fromstring(_registers(choice))
    maps = root[-1]  # behind vendor, library, name, version
    registers = maps.findtext(f"{_tag('memoryMap')}/{_tag('name')}", "")
    root.remove(maps)
    buses = SubElement(root, _tag("busInterfaces"))
    for prefix in _BUSES:
        _bus(buses, prefix, choice.ports, registers)
    spaces = SubElement(root, _tag("addressSpaces"))
    bits = choice.config.addr_width
    _add(_add(spaces, "addressSpace"), name=_HOST_MEMORY, range=f"'h{1 << bits:x}", width=choice.config.data_width)
    root.append(maps)
    _model(SubElement(root, _tag("model")), choice)
    files = _add(_add(root, "fileSets"), "fileSet")
    _add(files, name="rtl")
    for source in sources:
        _add(_add(files, "file"), name=source, fileType="verilogSource")
    _add(
        root,
        description="Tiptoe TCP offload engine. rst is synchronous to clk and active high: no bus has it as its ARESETn.",
    )
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _registers(choice: Choice) -> str:
    """PeakRDL's component, which has a memory map and nothing else."""
    from peakrdl_ipxact import IPXACTExporter, Standard

    from tiptoe_hdl.host.register_map import elaborate, source

    exporter = IPXACTExporter(vendor="tiptoe", library="ip", version=version(), standard=Standard.IEEE_1685_2014)
    with tempfile.TemporaryDirectory() as folder:
        file, registers = Path(folder) / "registers.xml", Path(folder) / "tiptoe.rdl"
        registers.write_text(source(choice.config), encoding="utf-8")
        exporter.export(elaborate(registers), str(file), component_name=choice.top)
        return file.read_text(encoding="utf-8")


def _tag(name: str) -> str:
    return f"{{{NAMESPACE}}}{name}"


def _add(parent: Element, child: str = "", **values: object) -> Element:
    """An empty child, which is returned, or children with a text each."""
    if child:
        return SubElement(parent, _tag(child))
    for name, value in values.items():
        SubElement(parent, _tag(name)).text = str(value)
    return parent


def _bus(parent: Element, prefix: str, ports: Iterable[Port], registers: str) -> None:
    name, revision, role = _BUSES[prefix]
    interface = _add(_add(parent, "busInterface"), name=prefix)
    identity = {"vendor": "amba.com", "library": "AMBA4", "name": name, "version": revision}
    SubElement(interface, _tag("busType"), identity)
    abstraction = _add(_add(interface, "abstractionTypes"), "abstractionType")
    SubElement(abstraction, _tag("abstractionRef"), identity | {"name": f"{name}_rtl"})
    signals = {"ACLK": "clk"} | {
        port.name.removeprefix(f"{prefix}_").upper(): port.name for port in ports if port.name.startswith(f"{prefix}_")
    }
    maps = _add(abstraction, "portMaps")
    for logical, physical in signals.items():
        each = _add(maps, "portMap")
        _add(_add(each, "logicalPort"), name=logical)
        _add(_add(each, "physicalPort"), name=physical)
    side = _add(interface, role)
    if prefix == "s_axil":
        SubElement(side, _tag("memoryMapRef"), {"memoryMapRef": registers})
    elif prefix == "m_axi":
        SubElement(side, _tag("addressSpaceRef"), {"addressSpaceRef": _HOST_MEMORY})


def _model(parent: Element, choice: Choice) -> None:
    view = _add(_add(parent, "views"), "view")
    _add(view, name="rtl", componentInstantiationRef="verilog")
    instance = _add(_add(parent, "instantiations"), "componentInstantiation")
    _add(instance, name="verilog", language="verilog", moduleName=choice.top)
    _add(_add(instance, "fileSetRef"), localName="rtl")
    ports = _add(parent, "ports")
    for port in choice.ports:
        each = _add(_add(ports, "port"), name=port.name)
        wire = _add(_add(each, "wire"), direction=port.direction)
        if port.width > 1:
            _add(_add(_add(wire, "vectors"), "vector"), left=port.width - 1, right=0)

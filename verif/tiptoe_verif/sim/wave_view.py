"""A prepared view beside an engine's waveform: a segment's way in and out, block by block, for GTKWave and for Surfer.

GTKWave's save file is written with pyvcd; Surfer gets a command file, whose commands are documented and stay, where its state
files are one version's own. Names and widths are those of the waveform itself, read with Surfer's reader; tests/verif/sim finds a
signal of the table that is no longer there.
"""

from __future__ import annotations

from pathlib import Path

GTKW, SURFER = ".gtkw", ".sucl"
CYCLE_PS = 8000
"""Of the clock in a waveform (native/harness.cpp)."""
_AROUND = 60
"""Cycles before the cursor at which the view begins."""
_ZOOM = -20.0
"""GTKWave's zoom: some two hundred cycles in a window."""

WAY: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("frame in", ("s_axis_rx_tvalid", "s_axis_rx_tready", "s_axis_rx_tlast", "s_axis_rx_tdata")),
    ("rx: parser", ("parser.i__valid", "parser.store__store", "parser.meta__valid")),
    ("rx: look-up", ("dispatcher.lookup__valid", "table.lookup__ready", "table.result__valid", "table.result__payload")),
    ("flow: TCB pipeline", ("flow.segment__valid", "flow.segment__ready", "flow.verdict__valid", "flow.notify__valid")),
    ("rx: placement", (
        "placement.verdict__valid", "placement.request__valid", "placement.data__valid", "placement.placed__valid",
    )),
    ("host: events", ("events.placed__valid", "events.report_request__valid", "events.request__valid", "events.data__valid")),
    ("host: DMA write", (
        "m_axi_awvalid", "m_axi_awready", "m_axi_awaddr", "m_axi_wvalid", "m_axi_wready", "m_axi_bvalid", "irq",
    )),
    ("tx: doorbell and credit", (
        "flow.doorbell__valid", "flow.doorbell__ready", "flow.tx__valid", "tx.segment__valid", "tx.segment__ready",
    )),
    ("tx: payload", ("tx.request__valid", "m_axi_arvalid", "m_axi_arready", "m_axi_araddr", "m_axi_rvalid", "tx.data__valid")),
    ("tx: acknowledgement", ("controls.o__valid", "tx.control__valid", "tx.control__ready")),
    ("frame out", ("tx.o__valid", "m_axis_tx_tvalid", "m_axis_tx_tready", "m_axis_tx_tlast", "m_axis_tx_tdata")),
)  # fmt: skip
"""Titles, and signals below the engine's scope, in the order in which a segment passes them."""


def signals(waveform: Path) -> dict[str, tuple[str, int]]:
    """Of the signals of the table those that the waveform has: full names and widths."""
    from pywellen import Waveform

    widths = {variable.full_name: variable.bitwidth or 1 for variable in Waveform(str(waveform)).all_vars()}
    landmark = f".{WAY[3][1][0]}"
    scope = min((name.removesuffix(landmark) for name in widths if name.endswith(landmark)), key=len, default="")
    return {
        name: (full, widths[full]) for _, names in WAY for name in names if (full := f"{scope}.{name}") in widths
    }  # fmt: skip


def write_views(waveform: Path, cycle: int | None = None) -> list[str]:
    """Write both views, with the cursor in ``cycle``; the names that the waveform does not have."""
    from vcd.gtkw import GTKWSave

    found = signals(waveform)
    at = None if cycle is None else cycle * CYCLE_PS
    commands = []
    with waveform.with_suffix(GTKW).open("w") as file:
        save = GTKWSave(file)
        save.dumpfile(str(waveform.resolve()))
        if at is not None:
            save.timestart(max(0, at - _AROUND * CYCLE_PS))
            save.zoom_markers(_ZOOM, at)
        for title, names in WAY:
            save.comment(title)
            commands.append(f"divider_add {title}")
            for name in names:
                if name not in found:
                    continue
                full, width = found[name]
                save.trace(f"{full}[{width - 1}:0]" if width > 1 else full, datafmt="hex")
                commands.append(f"variable_add {full}")
    commands += ["zoom_fit"] if at is None else [f"cursor_set {at}", "goto_cursor"]
    waveform.with_suffix(SURFER).write_text("\n".join(commands) + "\n")
    return [name for _, names in WAY for name in names if name not in found]

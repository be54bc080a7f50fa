"""The blocks whose area and speed are tracked: one line each, in the order of the report.

``Block(name, factory, ...)``: ``factory`` returns the Amaranth component; import inside it, so that one broken block
does not stop the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any


@dataclass(frozen=True)
class Block:
    """One component to synthesise alone."""

    name: str
    factory: Callable[[], Any]
    whole: bool = False
    """A whole engine: takes many minutes, so it runs only when asked for by name, or with ``--all`` as far as its area. Its
    parts, which have registers between them, are mapped one by one."""


def _example() -> Any:
    from ..example import AxiStreamSlice

    return AxiStreamSlice()


def _flow() -> Any:
    from tiptoe_hdl.config import ECP5
    from tiptoe_hdl.flow.flow import Flow

    return Flow(ECP5)


def _congestion() -> Any:
    from tiptoe_hdl.config import ECP5
    from tiptoe_hdl.flow.congestion.unit import CongestionUnit

    return CongestionUnit(ECP5)


def _realign() -> Any:
    from tiptoe_hdl.config import ECP5
    from tiptoe_hdl.wire.realign import Realigner

    return Realigner(ECP5)


def _dma_read() -> Any:
    from tiptoe_hdl.config import ECP5
    from tiptoe_hdl.host.dma_read import DmaReader

    return DmaReader(ECP5, clients=2)


def _dma_write() -> Any:
    from tiptoe_hdl.config import ECP5
    from tiptoe_hdl.host.dma_write import DmaWriter

    return DmaWriter(ECP5, clients=2)


def _tx() -> Any:
    from tiptoe_hdl.config import ECP5
    from tiptoe_hdl.tx.path import TxPath

    return TxPath(ECP5)


def _rx_parser() -> Any:
    from tiptoe_hdl.config import ECP5
    from tiptoe_hdl.rx.parser import RxParser

    return RxParser(ECP5)


def _rx_buffer() -> Any:
    from tiptoe_hdl.config import ECP5
    from tiptoe_hdl.rx.buffer import RxBuffer

    return RxBuffer(ECP5)


def _placement() -> Any:
    from tiptoe_hdl.config import ECP5
    from tiptoe_hdl.rx.placement import Placement

    return Placement(ECP5)


def _registers() -> Any:
    from tiptoe_hdl.config import ECP5
    from tiptoe_hdl.host.registers import Registers

    return Registers(ECP5)


def _counters() -> Any:
    from tiptoe_hdl.host.counters import CounterBank

    return CounterBank()


def _commands() -> Any:
    from tiptoe_hdl.config import ECP5
    from tiptoe_hdl.host.commands import CommandProcessor

    return CommandProcessor(ECP5)


def _events() -> Any:
    from tiptoe_hdl.config import ECP5
    from tiptoe_hdl.host.events import EventWriter

    return EventWriter(ECP5)


def _connection_table() -> Any:
    from tiptoe_hdl.config import ECP5
    from tiptoe_hdl.flow.connection_table import ConnectionTable

    return ConnectionTable(ECP5)


def _isn() -> Any:
    from tiptoe_hdl.config import ECP5
    from tiptoe_hdl.listen.isn import IsnGenerator

    return IsnGenerator(ECP5)


def _listen_unit() -> Any:
    from tiptoe_hdl.config import ECP5
    from tiptoe_hdl.listen.listen_unit import ListenUnit

    return ListenUnit(ECP5)


def _cookies() -> Any:
    from tiptoe_hdl.config import ECP5
    from tiptoe_hdl.listen.cookies import SynCookies

    return SynCookies(ECP5)


def _dispatcher() -> Any:
    from tiptoe_hdl.config import ECP5
    from tiptoe_hdl.rx.dispatcher import Dispatcher

    return Dispatcher(ECP5)


def _engine(connections: int) -> Any:
    from tiptoe_hdl.config import ECP5
    from tiptoe_hdl.engine import Engine

    return Engine(ECP5.with_(connections=connections))


def _lean_engine(connections: int) -> Any:
    from tiptoe_hdl.config import ECP5, LEAN
    from tiptoe_hdl.engine import Engine

    return Engine(ECP5.with_(connections=connections, **LEAN))


BLOCKS = [
    Block("axis_slice", _example),
    Block("flow", _flow),
    Block("congestion", _congestion),
    Block("realign", _realign),
    Block("registers", _registers),
    Block("counters", _counters),
    Block("commands", _commands),
    Block("events", _events),
    Block("dma_read", _dma_read),
    Block("dma_write", _dma_write),
    Block("rx_parser", _rx_parser),
    Block("rx_buffer", _rx_buffer),
    Block("placement", _placement),
    Block("dispatcher", _dispatcher),
    Block("cookies", _cookies),
    Block("connection_table", _connection_table),
    Block("isn", _isn),
    Block("listen_unit", _listen_unit),
    Block("tx", _tx),
    Block("engine", partial(_engine, 64), whole=True),
    Block("engine_512", partial(_engine, 512), whole=True),
    Block("lean_1024", partial(_lean_engine, 1024), whole=True),
]

"""What the peer of a connection of the engine model does: one function a step. A step that finds no connection in a fit
state changes nothing, as a segment would that comes too late."""

from __future__ import annotations

from tests.driver.races.engine_model import EngineModel, Tcb
from tiptoe_driver.hardware.abi_gen import Reason, State

RECEIVING = (State.ESTABLISHED, State.FIN_WAIT_1, State.FIN_WAIT_2)
DATA = b"0123456789"


def syn_ack(engine: EngineModel, tcb: Tcb) -> None:
    """SYN,ACK: our active open is established."""
    if tcb.state in (State.SYN_SENT, State.SYN_RECEIVED):
        tcb.established, tcb.state = 1, State.ESTABLISHED
        engine.snapshot(tcb)


def syn(engine: EngineModel, tcb: Tcb) -> None:
    """SYN: both sides open at once."""
    if tcb.state == State.SYN_SENT:
        tcb.state = State.SYN_RECEIVED
        engine.snapshot(tcb)


def data(engine: EngineModel, tcb: Tcb) -> None:
    """Ten bytes."""
    if tcb.state in RECEIVING:
        engine._place(tcb, DATA)
        engine.snapshot(tcb)


def fin(engine: EngineModel, tcb: Tcb) -> None:
    """FIN."""
    after = {State.ESTABLISHED: State.CLOSE_WAIT, State.FIN_WAIT_1: State.CLOSING, State.FIN_WAIT_2: State.TIME_WAIT}
    if tcb.state in after:
        tcb.peer_closed, tcb.state = 1, after[State(tcb.state)]
        engine.snapshot(tcb)


def data_fin(engine: EngineModel, tcb: Tcb) -> None:
    """Ten bytes and FIN in one segment: one snapshot tells of both."""
    if tcb.state in RECEIVING:
        engine._place(tcb, DATA)
        fin(engine, tcb)


def ack(engine: EngineModel, tcb: Tcb) -> None:
    """ACK of all that was sent, our FIN too."""
    after = {State.FIN_WAIT_1: State.FIN_WAIT_2, State.CLOSING: State.TIME_WAIT}
    if not tcb.established or not tcb.alive:
        return
    tcb.snd_una = tcb.snd_end
    if tcb.state == State.LAST_ACK:
        engine.die(tcb, Reason.NORMAL)
    else:
        tcb.state = after.get(State(tcb.state), tcb.state)
        engine.snapshot(tcb)


def ack_fin(engine: EngineModel, tcb: Tcb) -> None:
    """ACK of our FIN and the peer's own in one segment."""
    if tcb.state == State.FIN_WAIT_1:
        tcb.snd_una, tcb.state = tcb.snd_end, State.FIN_WAIT_2
    fin(engine, tcb)


def rst(engine: EngineModel, tcb: Tcb) -> None:
    """RST."""
    if tcb.alive:
        engine.die(tcb, Reason.REFUSED if tcb.state == State.SYN_SENT else Reason.PEER_RESET)


def data_rst(engine: EngineModel, tcb: Tcb) -> None:
    """Ten bytes, then RST before a snapshot was written: the terminal event tells of both."""
    if tcb.state in RECEIVING:
        engine._place(tcb, DATA)
    rst(engine, tcb)


def timeout(engine: EngineModel, tcb: Tcb) -> None:
    """Silence: the engine gives up what it has to retransmit."""
    if tcb.alive and (
        tcb.state not in (State.ESTABLISHED, State.CLOSE_WAIT, State.FIN_WAIT_2, State.TIME_WAIT)
        or tcb.snd_una < tcb.snd_end
    ):
        engine.die(tcb, Reason.TIMEOUT)


def dma_error(engine: EngineModel, tcb: Tcb) -> None:
    """A payload could not be moved."""
    if tcb.alive:
        engine.die(tcb, Reason.DMA_ERROR)


def two_msl(engine: EngineModel, tcb: Tcb) -> None:
    """TIME_WAIT is over."""
    if tcb.state == State.TIME_WAIT:
        engine.die(tcb, Reason.NORMAL)


def finish(engine: EngineModel, tcb: Tcb) -> None:
    """A friendly peer comes to its end."""
    for step in (syn_ack, ack, fin, ack, two_msl):
        step(engine, tcb)

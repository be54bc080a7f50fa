"""What is known of a connection, from the stack and from who carries it (FreeBSD's tcp_fill_info, in tcp_usrreq.c)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..hardware.abi_gen import Congestion, State
from ..hardware.positions import advance, distance
from .structures import tcpcb
from .tcp_info import NO_PACING_RATE, tcp_info
from .tcp_pmtu import ip_tcp_headers

INFO_US = 100_000
"""How long :func:`tcp_ask_info` waits for the device."""


def tcp_fill_info(
    tp: tcpcb, tcb: Mapping[str, int] | None = None, tick_us: int = 1000, pacing_rate: int = NO_PACING_RATE
) -> tcp_info:  # fmt: skip
    """From the stack's tcpcb, and from the device's TCB as READ_TCB gives it (names of ``abi_gen.TCB_PAGES``).

    ``tick_us``: a tick of the device in microseconds; ``pacing_rate``: what it makes of SO_MAX_PACING_RATE.
    """
    so = tp.t_inpcb.inp_socket
    buffered = so.so_snd.sb_cc if so is not None else 0
    told = distance(tp.snd_max, tp.snd_una)
    if tcb is None:
        return tcp_info(
            tcpi_state=tp.t_state,
            tcpi_wscale=bool(tp.snd_scale or tp.rcv_scale),
            tcpi_snd_wscale=tp.snd_scale,
            tcpi_rcv_wscale=tp.rcv_scale,
            tcpi_snd_mss=tp.t_maxseg,
            tcpi_pmtu=tp.t_maxseg + ip_tcp_headers(tp.t_inpcb),
            tcpi_rcv_space=tp.rcv_wnd,
            tcpi_snd_una=tp.snd_una,
            tcpi_snd_nxt=tp.snd_nxt,
            tcpi_snd_max=tp.snd_max,
            tcpi_rcv_nxt=tp.rcv_nxt,
            tcpi_rcv_adv=tp.rcv_adv,
            tcpi_unacked=told,
            tcpi_notsent=max(0, buffered - told),
            tcpi_max_pacing_rate=tp.t_max_pacing_rate,
        )
    measured = tcb["rtt_valid"]
    return tcp_info(
        tcpi_state=State(tcb["state"]),
        tcpi_device=True,
        # The device notes the agreement of an active open only; of an accepted connection it knows the scales.
        tcpi_wscale=bool(tcb["ws_ok"] or tp.snd_scale or tp.rcv_scale),
        tcpi_sack=bool(tcb["sack_ok"]),
        tcpi_ecn=bool(tcb["ecn_ok"] and tcb["established"]),  # before, it is offered
        tcpi_ecn_seen=bool(tcb["ecn_seen"]),
        # In SYN_SENT they are an offer.
        tcpi_timestamps=bool(tcb["ts_ok"] and tcb["state"] != State.SYN_SENT),
        tcpi_snd_wscale=tcb["snd_scale"],
        tcpi_rcv_wscale=tcb["rcv_scale"],
        tcpi_snd_mss=tcb["maxseg"],
        tcpi_pmtu=tp.t_maxseg + ip_tcp_headers(tp.t_inpcb),
        tcpi_rto=tcb["rto"] * tick_us,
        tcpi_rtt=measured * tcb["srtt"] * tick_us // 8,
        tcpi_rttvar=measured * tcb["rttvar"] * tick_us // 4,
        tcpi_snd_ssthresh=tcb["ssthresh"],
        tcpi_snd_cwnd=tcb["cwnd"],
        tcpi_snd_wnd=tcb["snd_wnd"],
        tcpi_rcv_space=distance(tcb["rcv_adv"], tcb["rcv_nxt"]),
        tcpi_snd_una=tcb["snd_una"],
        tcpi_snd_nxt=tcb["snd_nxt"],
        tcpi_snd_max=tcb["snd_max"],
        tcpi_rcv_nxt=tcb["rcv_nxt"],
        tcpi_rcv_adv=tcb["rcv_adv"],
        tcpi_unacked=distance(tcb["snd_max"], tcb["snd_una"]),
        # Our SYN and FIN have sequence numbers and no place in the buffer.
        tcpi_notsent=distance(advance(tcb["snd_end"], tcb["fin_sent"]), tcb["snd_max"]),
        tcpi_snd_rexmitpack=tcb["rexmits"],
        tcpi_rxtshift=tcb["rexmt_shift"],
        tcpi_dupacks=tcb["dupacks"],
        tcpi_in_recovery=bool(tcb["in_recovery"]),
        tcpi_persist=bool(tcb["persist"]),
        tcpi_congestion=Congestion(tcb["algorithm"]).name.lower(),
        tcpi_losses=tcb["losses"],
        tcpi_pacing_rate=pacing_rate,
        tcpi_max_pacing_rate=tp.t_max_pacing_rate,
        tcpi_probes=max(tcb["unanswered"], tp.t_keepprobes if tcb["unanswered"] else 0),
    )


def tcp_ask_info(tp: tcpcb, answer: Callable[[tcp_info], None], limit_us: int = INFO_US) -> None:
    """Have ``answer`` called once with what is known of ``tp``: by the device, if it tells within ``limit_us``, else by
    the stack. At once when there is nobody to ask, later in ``Stack.poll``. No lock may be held."""
    stack = tp.t_inpcb.stack
    told = False

    def tell(info: tcp_info | None) -> None:
        nonlocal told
        if not told:
            told = True
            limit.cancel()
            answer(info or tcp_fill_info(tp))

    limit = stack.callout(limit_us, lambda: tell(None))
    if tp.tod is None:
        tell(stack.software.tcp_info(tp) if stack.software is not None else None)
        return
    with tp.t_inpcb.lock:
        error = tp.tod.tod_tcp_info(tp, tell)
    if error:
        tell(None)

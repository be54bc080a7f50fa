"""Ports of the listen unit whose payload depends on the entry and the segment only. ``u`` is the ListenUnit."""

from amaranth.hdl import Array, Mux, Signal

from ..messages import ACK, ECE, RST, SYN, FlowOp, peer_fields
from .cookie_maker import NO_SCALE, Cookie, cookie_mss
from .jobs import DEFAULT_MSS


def outputs(m, u):
    """Statements outside the state machine; ``valid`` comes from the states."""
    peer, own, meta, facts = u.cache.peer, u.cache.own, u.handshake.payload.meta, u.facts
    syn, entry = u.syns.o.payload, u.listeners.entry
    cookie = Signal(Cookie)
    m.d.sync += cookie.eq(syn.ack - syn.seq)
    remembered = Array(cookie_mss(u.cfg))[cookie.mss]

    # The entry of a SYN, as it is stored: what the peer said, and what we say.
    m.d.comb += [
        u.cache.peer_data.tuple.eq(syn.tuple),
        u.cache.peer_data.smac.eq(syn.smac),
        u.cache.peer_data.irs.eq(syn.seq - syn.returned),
        u.cache.peer_data.mss.eq(Mux(syn.returned, remembered, Mux(syn.mss.any(), syn.mss, DEFAULT_MSS))),
        u.cache.peer_data.ws_present.eq(syn.ws_present),
        u.cache.peer_data.ws.eq(syn.ws),
        u.cache.peer_data.sack_ok.eq(syn.sack_ok & (u.sack | syn.returned)),
        u.cache.peer_data.ecn_ok.eq(syn.ecn_ok & (u.ecn | syn.returned)),
        u.cache.peer_data.ts_ok.eq(syn.ts_present & (u.timestamps | syn.returned)),
        u.cache.peer_data.tsval.eq(syn.tsval),
        *(u.cache.peer_data[name].eq(syn[name]) for name in peer_fields(u.cfg)),
        u.cache.own_data.iss.eq(Mux(syn.returned, syn.ack - 1, u.isn.payload)),
        u.cache.own_data.listener.eq(syn.listener),
        u.cache.own_data.by_cookie.eq(syn.returned),
        *(u.cache.own_data[name].eq(entry[name]) for name in ("mss", "rcv_scale", "wnd")),
        u.listeners.index.eq(syn.listener),
        u.listeners.write.payload.eq(u.listen.payload),
        u.isn_request.payload.eq(syn.tuple),
        u.table.payload.tuple.eq(peer.tuple),
        u.table.payload.is_syncache.eq(1),
        u.table.payload.index.eq(u.index),
    ]  # fmt: skip

    # Segments: a challenge, unless the state says something else.
    out = u.control.payload
    m.d.comb += [
        out.tuple.eq(peer.tuple), out.dmac.eq(peer.smac),
        out.seq.eq(facts.iss_next), out.ack.eq(facts.rcv_nxt), out.flags.eq(1 << ACK), out.wnd.eq(own.wnd),
        out.mss.eq(own.mss), out.ws_present.eq(peer.ws_present), out.ws.eq(own.rcv_scale),
        out.sack_ok.eq(peer.sack_ok), out.ts_ok.eq(peer.ts_ok), out.tsecr.eq(peer.tsval),
        *(out[name].eq(peer[name]) for name in peer_fields(u.cfg)),
    ]  # fmt: skip
    with m.If(u.states.at("SynAck")):
        m.d.comb += [
            out.seq.eq(own.iss), out.flags.eq(1 << SYN | 1 << ACK | peer.ecn_ok << ECE),
            # A cookie's says them again: whichever of both is echoed, should the entry have gone when that comes.
            out.says_options.eq(own.by_cookie), out.options.ws.eq(Mux(peer.ws_present, peer.ws, NO_SCALE)),
            out.options.sack_ok.eq(peer.sack_ok), out.options.ecn_ok.eq(peer.ecn_ok),
        ]  # fmt: skip
    with m.If(u.states.at("Reset")):
        m.d.comb += out.flags.eq(1 << RST | 1 << ACK)
    with m.If(u.states.at("Refuse")):
        m.d.comb += [out.seq.eq(meta.ack), out.ack.eq(0), out.flags.eq(1 << RST), out.ts_ok.eq(0)]

    m.d.comb += [
        u.endpoint.payload.id.eq(u.ids.r_data),
        u.endpoint.payload.endpoint.tuple.eq(peer.tuple),
        u.endpoint.payload.endpoint.dmac.eq(peer.smac),
        *(u.endpoint.payload.endpoint[name].eq(peer[name]) for name in peer_fields(u.cfg)),
        u.flow.payload.op.eq(FlowOp.ACCEPT),
        u.flow.payload.id.eq(u.ids.r_data),
        u.flow.payload.a.eq(own.iss),
        u.flow.payload.b.eq(peer.irs),
        u.flow.payload.mss.eq(facts.mss),
        u.flow.payload.snd_scale.eq(Mux(peer.ws_present, peer.ws, 0)),
        u.flow.payload.rcv_scale.eq(Mux(peer.ws_present, own.rcv_scale, 0)),
        u.flow.payload.sack_ok.eq(peer.sack_ok),
        u.flow.payload.ecn_ok.eq(peer.ecn_ok),
        u.flow.payload.ts_present.eq(peer.ts_ok),
        u.flow.payload.tsval.eq(peer.tsval),
        u.flow.payload.wnd.eq(own.wnd),
        u.flow.payload.syncache_ref.eq(facts.reference),
        u.flow.payload.elapsed.eq(facts.since),
        u.flow.payload.repeats.eq(u.cache.status.repeats),
    ]

    # Answers wait in their ports' registers.
    for port in (u.verdict, u.listen_status, u.drop_status):
        with m.If(port.ready):
            m.d.sync += port.valid.eq(0)
    with m.If(u.event.valid & u.event.ready):
        m.d.sync += [u.event.valid.eq(0), u.left_pending.eq(1)]

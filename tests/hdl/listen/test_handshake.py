"""One handshake as a table of segments: options, and everything that can come to a half-open connection."""

import pytest

from tests.hdl.listen.bench import EC, M32, A, E, F, R, S, info, peer_tuple, run_front_end, seg
from tests.hdl.listen.expected import SCALE, SEQUENCES, WND, refused, rx_segment, syn_ack
from tiptoe_hdl.config import TINY
from tiptoe_hdl.messages import FlowOp, Status


@pytest.mark.parametrize(
    "options, offered, flow",
    [
        ({}, (0, SCALE), {"mss": 536, "snd_scale": 0, "rcv_scale": 0}),
        ({"mss": 1400, "ws": 3}, (0, SCALE), {"mss": 1400, "snd_scale": 0, "rcv_scale": 0}),
        ({"mss": 1460, "ws_present": 1, "ws": 14}, (1, SCALE), {"mss": 1460, "snd_scale": 14, "rcv_scale": SCALE}),
        ({"mss": 9000, "ws_present": 1, "ws": 0}, (1, SCALE), {"mss": 1460, "snd_scale": 0, "rcv_scale": SCALE}),
    ],
    ids=["none", "mss", "mss_ws", "jumbo_ws0"],
)
def test_handshake_negotiates_options(options, offered, flow):
    async def scenario(ctx, net):
        tuple_, irs = peer_tuple(1), 0xFFFFFFFF
        net.set_clock(ctx, 0xFFFFFFFF, tuple_)
        await net.stock(ctx, 5, 9)
        assert await net.listen(ctx) == Status.OK
        control, event = await net.half_open(ctx, 1, irs, **options)
        assert control == syn_ack(tuple_, irs, 0xFFFFFFFF, ws_present=offered[0], ws=offered[1])
        ref = event["syncache_ref"]
        assert event == {
            "gone": 0, "syncache_ref": ref, "listener": 0, "tuple": tuple_, "iss": 0xFFFFFFFF, "irs": irs,
            "mss": options.get("mss", 536), "ws_present": options.get("ws_present", 0), "ws": options.get("ws", 0),
            "sack_ok": 0, "ts_ok": 0,
        }  # fmt: skip
        # The ACK carries data and the FIN: all of it reaches the pipeline.
        last = {"number": 1, "seq": irs + 1, "ack": 0, "flags": A | F, "payload_length": 100, "frame_length": 154}
        await net.send(ctx, **last)
        assert await net.next(ctx, "segment") == rx_segment(5, **last)
        assert await net.next(ctx, "info") == info(ask=1, **last)
        assert await net.next(ctx, "endpoint") == {
            "id": 5,
            "endpoint": {"tuple": tuple_, "dmac": seg()["smac"], "use_next_hop": 0, "next_hop": 0},
        }
        assert await net.next(ctx, "flow") == {
            "op": FlowOp.ACCEPT, "id": 5, "generation": 0, "a": 0xFFFFFFFF, "b": irs, "snd_log2": 0, "rcv_log2": 0,
            "wnd": WND, "syncache_ref": ref, "elapsed": 0, "repeats": 0, "sack_ok": 0, "ecn_ok": 0, "ts_present": 0,
            "tsval": 0, **flow,
        }  # fmt: skip
        await net.nothing(ctx)
        await net.release(ctx, tuple_, 5)
        counted = {name: count for name, count in net.counts.items() if count}
        assert counted == {"syn_received": 1, "accepted": 1}

    run_front_end(TINY, scenario)


@pytest.mark.parametrize("ours", [0, 1], ids=["off", "on"])
@pytest.mark.parametrize("peers", [0, 1], ids=["peer without", "peer with"])
def test_handshake_sack_is_permitted_if_both_do(ours, peers):
    """RFC 2018 section 2: the SYN,ACK says it if the SYN did and the register allows it; the host and the connection hear it
    so. A SYN that comes again, with the option or without, and a register written meanwhile, change nothing: it was said."""

    async def scenario(ctx, net):
        ctx.set(net.dut.sack, ours)
        tuple_, irs, both = peer_tuple(1), 0xFFFFFFFF, ours & peers
        net.set_clock(ctx, 7, tuple_)
        await net.stock(ctx, 5)
        assert await net.listen(ctx) == Status.OK
        control, event = await net.half_open(ctx, 1, irs, mss=1400, sack_ok=peers)
        assert control == syn_ack(tuple_, irs, 7, sack_ok=both) and event["sack_ok"] == both
        ctx.set(net.dut.sack, 1 - ours)
        for again in (peers, 1 - peers):
            await net.send(ctx, number=1, seq=irs, flags=S, sack_ok=again)
            assert (await net.next(ctx, "info"))["ask"] == 0
            assert await net.next(ctx, "control") == control
        net.ticking = True
        while not net.out["control"]:
            await ctx.tick()
        net.ticking = False
        assert await net.next(ctx, "control") == control
        await net.send(ctx, number=1, seq=irs + 1, ack=8, flags=A, payload_length=3)
        assert (await net.next(ctx, "flow"))["sack_ok"] == both

    run_front_end(TINY, scenario)


@pytest.mark.parametrize("ours", [0, 1], ids=["off", "on"])
@pytest.mark.parametrize("said, offers", [(EC, 1), (E, 0), (EC - E, 0), (0, 0)], ids=["both", "ece", "cwr", "none"])
def test_handshake_ecn_is_agreed_if_both_do(ours, said, offers):
    """RFC 3168 section 6.1.1: ECE alone answers both. A SYN that comes again, without them or with, is answered as the first
    one, as in Linux: the peer may have had that answer, and what it has sets what it sends. Marks on a SYN say nothing."""

    async def scenario(ctx, net):
        ctx.set(net.dut.ecn, ours)
        tuple_, irs, both = peer_tuple(1), 0xFFFFFFFF, ours & offers
        net.set_clock(ctx, 7, tuple_)
        await net.stock(ctx, 5)
        assert await net.listen(ctx) == Status.OK
        control, _ = await net.half_open(ctx, 1, irs, mss=1400, flags=S | said, ecn=3)
        assert control == syn_ack(tuple_, irs, 7, flags=S | A | E * both)
        ctx.set(net.dut.ecn, 1 - ours)
        for again in (said, EC - said):
            await net.send(ctx, number=1, seq=irs, flags=S | again)
            assert (await net.next(ctx, "info"))["ask"] == 0
            assert await net.next(ctx, "control") == control
        last = {
            "number": 1,
            "seq": irs + 1,
            "ack": 8,
            "flags": A | EC,
            "payload_length": 100,
            "frame_length": 154,
            "ecn": 3,
        }
        await net.send(ctx, **last)
        assert await net.next(ctx, "segment") == rx_segment(5, **last)
        assert (await net.next(ctx, "flow"))["ecn_ok"] == both

    run_front_end(TINY, scenario)


@pytest.mark.parametrize("ours", [0, 1], ids=["off", "on"])
@pytest.mark.parametrize("peers", [0, 1], ids=["peer without", "peer with"])
def test_handshake_timestamps_are_agreed_upon_if_both_do(ours, peers):
    """RFC 7323 section 3.2: as selective acknowledgements. The SYN,ACK, what repeats it, challenge ACKs and the reset of who is
    dropped echo the SYN's TSval; a reset for a wrong acknowledgement is of no connection."""

    async def scenario(ctx, net):
        ctx.set(net.dut.timestamps, ours)
        tuple_, irs, both = peer_tuple(1), 0xFFFFFFFF, ours & peers
        net.set_clock(ctx, 7, tuple_)
        await net.stock(ctx, 5)
        assert await net.listen(ctx) == Status.OK
        stamps = {"ts_present": peers, "tsval": 0xFFFFFFFE, "tsecr": 0}
        control, event = await net.half_open(ctx, 1, irs, mss=1400, **stamps)
        assert control == syn_ack(tuple_, irs, 7, ts_ok=both, tsecr=0xFFFFFFFE) and event["ts_ok"] == both
        ctx.set(net.dut.timestamps, 1 - ours)
        for again in (peers, 1 - peers):
            await net.send(ctx, number=1, seq=irs, flags=S, ts_present=again, tsval=5)
            assert (await net.next(ctx, "info"))["ask"] == 0
            assert await net.next(ctx, "control") == control
        await net.send(ctx, number=1, seq=irs + 1, ack=8, flags=S | A)
        challenge = await net.next(ctx, "control")
        assert (challenge["flags"], challenge["ts_ok"], challenge["tsecr"]) == (A, both, 0xFFFFFFFE)
        await net.send(ctx, number=1, seq=irs + 1, ack=9, flags=A)
        refusal = await net.next(ctx, "control")
        assert (refusal["flags"], refusal["ts_ok"]) == (R, 0)
        await net.send(ctx, number=1, seq=irs + 1, ack=8, flags=A, payload_length=3, ts_present=1, tsval=6, tsecr=9)
        assert (await net.next(ctx, "flow"))["ts_present"] == both
        segment = await net.next(ctx, "segment")
        assert [segment[name] for name in ("ts_present", "tsval", "tsecr")] == [1, 6, 9]

    run_front_end(TINY.with_(timestamps=True), scenario)


def test_handshake_sack_of_an_entry_is_not_its_next_users():
    async def scenario(ctx, net):
        assert await net.listen(ctx) == Status.OK
        await net.stock(ctx, *range(TINY.syncache_entries))
        for number in range(2 * TINY.syncache_entries):
            control, event = await net.half_open(ctx, number, 7, sack_ok=int(number < TINY.syncache_entries))
            assert control["sack_ok"] == event["sack_ok"] == (number < TINY.syncache_entries)
            assert await net.drop(ctx, event["syncache_ref"]) == Status.OK
            assert refused(await net.next(ctx, "control"))["flags"] == R | A
            await net.next(ctx, "event")

    run_front_end(TINY, scenario)


async def pass_ticks(ctx, net, ticks):
    """Ticks, and then time for the walks over all entries that they begin."""
    net.ticking = bool(ticks)
    await ctx.tick().repeat(max(1, ticks))
    net.ticking = False
    await ctx.tick().repeat(200)


@pytest.mark.parametrize("ticks", [0, 1, 57, 998])
def test_handshake_round_trip_is_told_with_the_connection(ticks):
    """RFC 6298 section 2.2: the SYN,ACK was sent once, so what passed until its ACK is the first sample."""

    async def scenario(ctx, net):
        await net.stock(ctx, 5)
        assert await net.listen(ctx) == Status.OK
        control, _ = await net.half_open(ctx, 1, 7)
        await ctx.tick().repeat(100)
        await pass_ticks(ctx, net, ticks)
        await net.send(ctx, number=1, seq=8, ack=control["seq"] + 1 & M32, flags=A)
        flow = await net.next(ctx, "flow")
        assert flow["repeats"] == 0 and abs(flow["elapsed"] - ticks) <= 1

    run_front_end(TINY, scenario)


@pytest.mark.parametrize("by", ["its timer", "the peer's SYN", "both"])
@pytest.mark.parametrize("times", [1, 2, 3, 5])
def test_handshake_syn_ack_repeated_gives_no_sample(by, times):
    """Karn's algorithm: which SYN,ACK the ACK is for, nobody knows. How often it was repeated is told, up to twice."""

    async def scenario(ctx, net):
        await net.stock(ctx, 5)
        assert await net.listen(ctx) == Status.OK
        control, _ = await net.half_open(ctx, 1, 0xFFFFFFFF)
        for number in range(times):
            await ctx.tick().repeat(100)
            if by == "its timer" or (by == "both" and number % 2):
                net.ticking = True
                while not net.out["control"]:
                    await ctx.tick()
                net.ticking = False
            else:
                await net.send(ctx, number=1, seq=0xFFFFFFFF, flags=S)
                assert (await net.next(ctx, "info"))["ask"] == 0
            assert (await net.next(ctx, "control"))["flags"] == S | A
        await ctx.tick().repeat(100)
        await net.send(ctx, number=1, seq=0, ack=control["seq"] + 1 & M32, flags=A)
        assert (await net.next(ctx, "flow"))["repeats"] == min(times, 2)

    run_front_end(TINY, scenario)


def test_handshake_repeats_of_an_entry_are_not_its_next_users(rng):
    async def scenario(ctx, net):
        await net.stock(ctx, 5, 6)
        assert await net.listen(ctx) == Status.OK
        for number in (1, 2):
            for user in range(TINY.syncache_entries):  # every entry is used, so the next round meets it again
                control, event = await net.half_open(ctx, 10 * number + user, 7)
                if number == 1:
                    await net.send(ctx, number=10 * number + user, seq=7, flags=S)
                    await net.next(ctx, "info")
                    assert (await net.next(ctx, "control"))["flags"] == S | A
                    assert await net.drop(ctx, event["syncache_ref"]) == Status.OK
                    await net.next(ctx, "control")
                    await net.next(ctx, "event")
                    await ctx.tick().repeat(100)
                elif user < 1:
                    await net.send(ctx, number=20 + user, seq=8, ack=control["seq"] + 1 & M32, flags=A)
                    assert (await net.next(ctx, "flow"))["repeats"] == 0
                    return

    run_front_end(TINY, scenario)


# (name, segment relative to irs and iss of the half-open connection, what must happen)
SYN_RECEIVED_CASES = [
    ("rst_next", {"flags": R, "seq": 1}, "removed"),
    ("rst_ack_next", {"flags": R | A, "seq": 1, "ack": 77}, "removed"),
    ("rst_in_window", {"flags": R, "seq": 2}, "challenge"),
    ("rst_end_of_window", {"flags": R, "seq": WND}, "challenge"),
    ("rst_behind_window", {"flags": R, "seq": WND + 1}, "ignored"),
    ("rst_before_window", {"flags": R, "seq": 0}, "ignored"),
    ("syn_again", {"flags": S, "seq": 0}, "syn_ack"),
    ("syn_elsewhere", {"flags": S, "seq": 100}, "challenge"),
    ("syn_before", {"flags": S, "seq": -100}, "challenge"),
    ("syn_ack", {"flags": S | A, "seq": 0, "ack": 1}, "challenge"),
    ("no_flags", {"flags": 0, "seq": 1}, "ignored"),
    ("fin_without_ack", {"flags": F, "seq": 1}, "ignored"),
    ("ack_of_nothing", {"flags": A, "seq": 1, "ack": 0}, "reset"),
    ("ack_too_high", {"flags": A, "seq": 1, "ack": 2}, "reset"),
    ("ack_far_off", {"flags": A, "seq": 1, "ack": 0x80000001}, "reset"),
    ("bad_ack_bad_seq", {"flags": A, "seq": -5, "ack": 3}, "challenge"),
    ("bad_ack_behind_window", {"flags": A, "seq": WND + 2, "ack": 0}, "challenge"),
    ("bad_ack_at_edge", {"flags": A, "seq": WND + 1, "ack": 0}, "reset"),
    ("bad_ack_reaches_in", {"flags": A, "seq": 0, "ack": 0, "payload_length": 9}, "reset"),
    ("no_ack_reaches_in", {"flags": 0, "seq": 0, "payload_length": 9}, "ignored"),
    ("rst_reaches_in", {"flags": R, "seq": 0, "payload_length": 9}, "ignored"),
    ("data_ends_at_rcv_nxt", {"flags": A, "seq": -99, "ack": 1, "payload_length": 100}, "challenge"),
    ("fin_ends_at_rcv_nxt", {"flags": F | A, "seq": -99, "ack": 1, "payload_length": 99}, "challenge"),
    ("data_at_edge", {"flags": A, "seq": WND + 1, "ack": 1, "payload_length": 1}, "challenge"),
    ("fin_at_edge", {"flags": F | A, "seq": WND + 1, "ack": 1}, "challenge"),
    ("data_too_far_left", {"flags": A, "seq": 1 - 4096, "ack": 1, "payload_length": 4095}, "challenge"),
    ("no_flags_before_window", {"flags": 0, "seq": 0}, "challenge"),
    ("ack_before_window", {"flags": A, "seq": 0, "ack": 1}, "challenge"),
    ("ack_behind_window", {"flags": A, "seq": WND + 2, "ack": 1}, "challenge"),
    ("ack_far_behind", {"flags": A, "seq": 0x80000001, "ack": 1}, "challenge"),
    ("ack_next", {"flags": A, "seq": 1, "ack": 1}, "accepted"),
    ("ack_with_data", {"flags": A, "seq": 1, "ack": 1, "payload_length": 1460, "frame_length": 1514}, "accepted"),
    ("ack_out_of_order", {"flags": A, "seq": 1461, "ack": 1, "payload_length": 40}, "accepted"),
    ("ack_end_of_window", {"flags": A, "seq": WND, "ack": 1}, "accepted"),
    ("ack_at_edge", {"flags": A, "seq": WND + 1, "ack": 1}, "accepted"),
    ("data_reaches_in", {"flags": A, "seq": 0, "ack": 1, "payload_length": 2}, "accepted"),
    ("fin_reaches_in", {"flags": F | A, "seq": -99, "ack": 1, "payload_length": 100}, "accepted"),
    ("most_data_reaches_in", {"flags": A, "seq": 1 - 4094, "ack": 1, "payload_length": 4095}, "accepted"),
]


@pytest.mark.parametrize("irs, iss, stall", [(*pair, 0.7 * (n % 2)) for n, pair in enumerate(SEQUENCES)])
def test_segments_of_half_open_connections(irs, iss, stall):
    async def scenario(ctx, net):
        assert await net.listen(ctx) == Status.OK
        id_ = 0
        await net.stock(ctx, id_)
        for number, (name, relative, outcome) in enumerate(SYN_RECEIVED_CASES):
            tuple_, before = peer_tuple(number), dict(net.counts)
            net.set_clock(ctx, iss, tuple_)
            first, event = await net.half_open(ctx, number, irs)
            assert first == syn_ack(tuple_, irs, iss), name
            fields = relative | {
                "number": number,
                "seq": irs + relative["seq"],
                "ack": iss + relative.get("ack", 0),
            }
            await net.send(ctx, **fields)
            assert await net.next(ctx, "info") == info(ask=int(outcome == "accepted"), drop=True, **fields), name
            control = {"tuple": tuple_, "dmac": seg()["smac"]}
            match outcome:
                case "accepted":
                    assert await net.next(ctx, "segment") == rx_segment(id_, **fields), name
                    assert (await net.next(ctx, "flow"))["id"] == id_
                    assert (await net.next(ctx, "endpoint"))["id"] == id_
                    counts = {"accepted": 1}
                case "removed":
                    assert await net.next(ctx, "event") == event | {"gone": 1}, name
                    counts = {}
                case "challenge":
                    got = refused(await net.next(ctx, "control"))
                    assert got == control | {"seq": iss + 1 & M32, "ack": irs + 1 & M32, "flags": A}, name
                    counts = {"challenge_acks": 1}
                case "reset":
                    got = refused(await net.next(ctx, "control"))
                    assert got == control | {"seq": fields["ack"] & M32, "ack": 0, "flags": R}, name
                    counts = {"syncache_bad_ack": 1}
                case "syn_ack":
                    assert await net.next(ctx, "control") == first, name
                    counts = {}
                case "ignored":
                    counts = {}
            # What is left of it goes away by the host's word; and exactly that is left.
            if outcome in ("accepted", "removed"):
                expected = Status.BAD_GENERATION
                assert await net.drop(ctx, event["syncache_ref"]) == expected, name
                if outcome == "accepted":
                    await net.release(ctx, tuple_, id_)
                    id_ += 1
                    await net.stock(ctx, id_)
            else:
                assert await net.drop(ctx, event["syncache_ref"]) == Status.OK, name
                got = refused(await net.next(ctx, "control"))
                assert got == control | {"seq": iss + 1 & M32, "ack": irs + 1 & M32, "flags": R | A}, name
                assert await net.next(ctx, "event") == event | {"gone": 1}, name
            changed = {key: net.counts[key] - before[key] for key in net.counts if net.counts[key] != before[key]}
            assert changed == counts | {"syn_received": 1}, name
        await net.nothing(ctx)

    run_front_end(TINY, scenario, stall=stall)


@pytest.mark.parametrize("irs", [0xFFFF_FFFD, 0xFFFF_FFFF])
@pytest.mark.parametrize("length, accepted", [(2, True), (6, True), (7, False), (1460, False)])
def test_what_begins_left_of_a_tiny_window_has_to_end_inside(irs, length, accepted):
    """RFC 9293 section 3.10.7.4 first: RCV.NXT =< SEG.SEQ+SEG.LEN-1 < RCV.NXT+RCV.WND."""

    async def scenario(ctx, net):
        assert await net.listen(ctx, wnd=5) == Status.OK
        await net.stock(ctx, 0)
        first, _ = await net.half_open(ctx, 0, irs)
        await net.send(ctx, number=0, flags=A, seq=irs, ack=first["seq"] + 1 & M32, payload_length=length)
        if accepted:
            assert (await net.next(ctx, "flow"))["wnd"] == 5
        else:
            got = refused(await net.next(ctx, "control"))
            assert (got["flags"], got["ack"]) == (A, irs + 1 & M32)

    run_front_end(TINY, scenario)

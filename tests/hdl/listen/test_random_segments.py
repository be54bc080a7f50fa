"""Random segments to the listen unit in its surroundings, against a model."""

import random

import pytest

from tests.hdl.listen.bench import M32, A, F, R, S, info, peer_tuple, run_front_end
from tests.hdl.listen.expected import ENTRIES, WND, refused, rx_segment
from tiptoe_hdl.config import TINY
from tiptoe_hdl.messages import Status, TableOp


class Model:
    """Half-open connections and connections as the engine must see them."""

    def __init__(self, syn_to_host):
        self.syn_to_host = syn_to_host
        self.half_open = {}  # peer number -> (irs, iss, ref)
        self.connections = {}  # peer number -> id
        self.stock = []

    def expect(self, number, meta):
        """(what the frame becomes, control segment's flags or None) for a segment of peer ``number``."""
        flags, seq, ack = meta["flags"], meta["seq"], meta["ack"]
        if number in self.connections:
            return "segment", None
        if number not in self.half_open:
            if flags & (S | A | R) == S:
                if len(self.half_open) < min(ENTRIES, len(self.stock)):
                    return "new", S | A
                return "host" if self.syn_to_host else "drop", None
            if not flags & (S | A | R):
                return "drop", None
            return "drop", None if flags & R else (R if flags & A else R | A)
        irs, iss, _ = self.half_open[number]
        offset = seq - irs - 1 & M32
        if flags & R:
            return ("gone", None) if offset == 0 else ("drop", A if offset < WND else None)
        if flags & S:
            return "drop", S | A if seq == irs and not flags & A else A
        length = meta.get("payload_length", 0) + (flags & F != 0)
        reaches_in = offset > M32 - 4096 and 0 < offset + length - M32 - 1 <= WND
        if offset >= WND and not reaches_in and not (offset == WND and length == 0):
            old = flags & A and ack != iss + 1 & M32  # or the host's
            return ("host", None) if old and self.syn_to_host else ("drop", A)
        if not flags & A:
            return "drop", None
        if ack != iss + 1 & M32:
            return "gone" if self.syn_to_host else "drop", R
        return "accept", None


@pytest.mark.parametrize("seed", range(4))
def test_random_segments_against_model(seed):
    rng = random.Random(f"listen:{seed}")
    stall = [0.0, 0.3, 0.8, 0.1][seed]

    async def scenario(ctx, net):
        model = Model(syn_to_host=seed == 3)
        ctx.set(net.dut.syn_to_host, int(model.syn_to_host))
        net.flow_delay = rng.randrange(1, 20)
        await net.listen(ctx)
        free_ids = list(range(16))
        for _ in range(150):
            choice = rng.random()
            if choice < 0.08 and free_ids:
                one = free_ids.pop(rng.randrange(len(free_ids)))
                model.stock.append(one)
                await net.stock(ctx, one)
                continue
            if choice < 0.12 and model.half_open:
                number = rng.choice(list(model.half_open))
                ref = model.half_open.pop(number)[2]
                assert await net.drop(ctx, ref) == Status.OK
                assert (await net.next(ctx, "control"))["flags"] == R | A
                assert (await net.next(ctx, "event"))["syncache_ref"] == ref
                assert await net.drop(ctx, ref) == Status.BAD_GENERATION
                continue
            if choice < 0.2 and model.connections:
                number = rng.choice(list(model.connections))
                one = model.connections.pop(number)
                free_ids.append(one)
                await net.release(ctx, peer_tuple(number), one)
                continue
            number = rng.randrange(8)
            irs, iss, _ = model.half_open.get(number, (rng.getrandbits(32), rng.getrandbits(32), 0))
            meta = {
                "flags": rng.choice([S, S, A, A, A, A, A | F, R, R | A, S | A, F, 0, S | F]),
                "seq": irs + rng.choice([0, 1, 1, 1, 1, 2, WND, WND + 1, -1]) & M32,
                "ack": iss + rng.choice([0, 1, 1, 1, 1, 2]) & M32,
                "mss": rng.choice([0, 1000]), "ws_present": rng.getrandbits(1), "ws": rng.randrange(15),
                "sack_ok": rng.getrandbits(1),
            }  # fmt: skip
            if number not in model.half_open:
                net.set_clock(ctx, rng.choice([M32, 0, rng.getrandbits(32)]), peer_tuple(number))
            frame, flags = model.expect(number, meta)
            await net.send(ctx, number=number, **meta)
            assert await net.next(ctx, "info") == info(ask=int(frame in ("segment", "accept")), drop=frame != "host")
            if flags is not None:
                port = "reset" if (number not in model.half_open or frame == "gone") and flags & R else "control"
                control = await net.next(ctx, port)
                assert (control["flags"], control["tuple"]) == (flags, peer_tuple(number))
            match frame:
                case "new":
                    event = await net.next(ctx, "event")
                    assert event["irs"] == meta["seq"] == control["ack"] - 1 & M32
                    assert event["iss"] == control["seq"] == net.iss(peer_tuple(number))
                    model.half_open[number] = (event["irs"], event["iss"], event["syncache_ref"])
                case "gone":
                    event = await net.next(ctx, "event")
                    assert (event["gone"], event["syncache_ref"]) == (1, model.half_open.pop(number)[2])
                case "segment":
                    assert await net.next(ctx, "segment") == rx_segment(model.connections[number], **meta)
                case "accept":
                    one = model.stock.pop(0)
                    model.connections[number] = one
                    irs, iss, ref = model.half_open.pop(number)
                    flow = await net.next(ctx, "flow")
                    assert (flow["id"], flow["a"], flow["b"], flow["syncache_ref"]) == (one, iss, irs, ref)
                    assert (await net.next(ctx, "endpoint"))["endpoint"]["tuple"] == peer_tuple(number)
                    assert await net.next(ctx, "segment") == rx_segment(one, **meta)
            if rng.random() < 0.3:
                await net.settle(ctx)
                assert not net.pending()
        # Emptiness: everything ends, all entries can be had again, no four-tuple is left in the table.
        assert await net.unlisten(ctx) == Status.OK
        for _ in model.half_open:
            assert (await net.next(ctx, "control"))["flags"] == R | A
            assert (await net.next(ctx, "event"))["gone"]
        for number, one in model.connections.items():
            await net.release(ctx, peer_tuple(number), one)
        for number in range(8):
            await net.send(ctx, number=number, flags=A, ack=5)
            assert refused(await net.next(ctx, "reset"))["seq"] == 5
            await net.next(ctx, "info")
        await net.listen(ctx)
        await net.stock(ctx, *free_ids[:ENTRIES])
        for number in range(ENTRIES):
            await net.half_open(ctx, number)
        await net.nothing(ctx)

    run_front_end(TINY, scenario, stall=stall, seed=seed)


@pytest.mark.parametrize("seed", range(2))
def test_promises_in_disorder(seed):
    """Nobody waits for anybody: SYNs back to back and twice, ACKs, resets, drops of any reference, listeners that come and go,
    ids that come and are refused, ticks, a host that looks away. The bench counts promises whenever the unit is idle; at the
    end none is left."""
    rng = random.Random(f"disorder:{seed}")

    async def scenario(ctx, net):
        ctx.set(net.dut.syn_retries, rng.randrange(3))
        ctx.set(net.dut.syn_to_host, seed)
        net.flow_result = lambda request: Status.BAD_STATE if rng.random() < 0.1 else Status.OK
        listening = False
        ids = list(range(16))
        for _ in range(400):
            net.ticking = rng.random() < 0.7
            if rng.random() < 0.1:
                net.hold = {"event"} - net.hold
            kinds = ["syn", "ack", "rst", "drop", "listen", "stock", "wait"]
            match rng.choices(kinds, [6, 8, 1, 1, 0 if listening and rng.random() < 0.8 else 1, 4, 4])[0]:
                case "syn":
                    number = rng.randrange(8)
                    for _ in range(rng.choice([1, 1, 2, 3])):
                        await net.send(ctx, number=number, seq=1000, flags=S)
                case "ack":
                    number = rng.randrange(8)
                    iss = net.iss(peer_tuple(number)) + rng.choice([1, 1, 1, 2])
                    await net.send(ctx, number=number, seq=1001, ack=iss)
                case "rst":
                    await net.send(ctx, number=rng.randrange(8), seq=1001, flags=R)
                case "drop":
                    await net.drop(ctx, rng.randrange(ENTRIES) | rng.randrange(256) << 8)
                case "listen":
                    await (net.unlisten(ctx) if listening else net.listen(ctx))
                    listening = not listening
                case "stock" if ids:
                    await net.stock(ctx, ids.pop())
                case "wait":
                    await ctx.tick().repeat(rng.randrange(1, 200))
            # Who has got an id is gone at once; one that was refused was not found in the table long.
            while net.out["endpoint"]:
                endpoint = net.out["endpoint"].popleft()
                await net.table(ctx, TableOp.DELETE, endpoint["endpoint"]["tuple"], endpoint["id"])
                ids.append(endpoint["id"])
        net.hold.clear()
        net.ticking = False
        if listening:
            await net.unlisten(ctx)
        await net.settle(ctx)
        assert net.half_open_entries(ctx) == 0
        assert ctx.get(net.dut.spare) == ctx.get(net.dut.ids_left)
        assert net.counts["accepted"] > 5 and net.counts["syn_dropped_full"] > 5

    run_front_end(TINY, scenario, stall=0.2, seed=seed, max_cycles=120_000)

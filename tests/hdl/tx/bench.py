"""Bench of the transmit path: host memory behind a DMA reader with latency and errors, scapy as reference."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from itertools import count
from typing import Any

from amaranth.hdl import Cat
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from tiptoe_hdl.config import EngineConfig
from tiptoe_hdl.messages import ACK, LADDR_V6, PSH, RST, SYN, Status
from tiptoe_hdl.tx.path import TxPath
from tiptoe_verif.streams import beats_frames, recv_n, run_bench, stream_get, to_py, watch_stream

IP6 = 0x2001_0DB8_FFFF_0001_8000_0000_0000_FFFE
MAC, TTL, TOS = 0x02_54_49_50_54_4F, 64, 0x10
SEGMENT, CONTROL, FRAME = "segment", "control", "frame"
FLAGS_DATA = 1 << ACK | 1 << PSH
TS_NOW = 0x8000_0001


def mac_text(mac: int) -> str:
    return ":".join(f"{byte:02x}" for byte in mac.to_bytes(6, "big"))


def ip_text(address: int) -> str:
    return ".".join(str(byte) for byte in address.to_bytes(4, "big"))


def ip6_text(address: int) -> str:
    return str(IPv6Address(address))


@dataclass
class Endpoint:
    """A connection as the tables know it."""

    tuple: dict[str, int]
    dmac: int
    use_next_hop: int
    next_hop: int
    base: int
    log2: int
    ip_header: tuple[int, int] | None  # ttl and tos of its own
    faddr6: int | None = None  # it is one of IPv6


@dataclass
class Received:
    """What a connection has received out of order: as :func:`sack_list`."""

    intervals: list[tuple[int, int]] = field(default_factory=list)
    newest: int = 0

    def blocks(self, room: int) -> list[tuple[int, int]]:
        """RFC 2018 section 4: the newest first, then as many others as there is room for."""
        first = self.newest if self.newest < len(self.intervals) else 0
        return [*self.intervals[first : first + 1], *self.intervals[:first], *self.intervals[first + 1 :]][:room]

    def around(self, start: int) -> list[int]:
        """Which interval has this byte: one, or none."""
        return [n for n, (begin, end) in enumerate(self.intervals) if (start - begin) % 2**32 < (end - begin) % 2**32]

    def blocks_with_twice(self, room: int, twice: tuple[int, int], ack: int) -> list[tuple[int, int]]:
        """RFC 2883 section 4: first what has come twice; ahead of the acknowledgement the block around it behind it, and not at
        all if there is none."""
        around = self.around(twice[0])
        if around:
            return [twice, *Received(self.intervals, around[0]).blocks(room - 1)]
        old = (twice[0] - ack) % 2**32 >= 2**31
        return [twice, *self.blocks(room - 1)] if old else self.blocks(room)


@dataclass
class Job:
    """One frame to send: the message of its source, whether its memory answers with an error, and what its connection
    has received out of order."""

    source: str
    message: dict[str, Any]
    error: bool = False
    received: Received = field(default_factory=Received)
    rewritten: tuple[int, Received] | None = None  # cycles after it is first offered, and what is held from then on

    @property
    def length(self) -> int:
        return self.message.get("length", 0)


@dataclass
class TxBench:
    """Runs jobs through a :class:`TxPath` and compares every byte of every frame.

    ``latency`` is that of host memory in cycles, from a request's transfer to its first word; ``idle``, ``stall`` and
    ``slow`` are probabilities per cycle of no job, ``o`` not ready, and no read word.
    """

    cfg: EngineConfig
    rng: random.Random
    latency: int = 5
    idle: float = 0.0
    stall: float = 0.0
    slow: float = 0.0
    done_stall: float = 0.0
    ts_now: int = TS_NOW
    unknown: bool = False  # no list of SACK blocks is ever known
    lenient: bool = False  # the test itself compares the frames
    done_after: Job | None = None  # frame_done is not taken before this one is accepted

    endpoints: dict[int, Endpoint] = field(default_factory=dict)
    hops: list[int] = field(default_factory=list)
    accepted: list[Job] = field(default_factory=list)
    requested: list[dict[str, int]] = field(default_factory=list)
    marks: dict[str, int] = field(default_factory=dict)  # cycle in which a port was first valid
    beat_cycles: list[tuple[int, int]] = field(default_factory=list)  # cycle, last
    counts: dict[str, int] = field(default_factory=dict)
    errors: list[dict[str, int]] = field(default_factory=list)
    statuses: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.dut = TxPath(self.cfg)
        least = self.cfg.ring_log2_min
        self.rings_end = 8 << least + 2
        self.memory = bytearray(self.rng.randbytes(2 * self.rings_end))
        rng = self.rng
        self.hops = [rng.getrandbits(48) for _ in range(self.cfg.next_hops)]
        for id in range(8):
            log2 = least + id % 3
            # Rings may touch: id n in its own place of the largest one's size.
            four_tuple, faddr6 = self.four_tuple()
            self.endpoints[id] = Endpoint(
                four_tuple,
                rng.getrandbits(48), id & 1, rng.randrange(self.cfg.next_hops), id << least + 2, log2,
                (rng.getrandbits(8), rng.getrandbits(8)) if id & 2 else None, faddr6,
            )  # fmt: skip
            self.echoes[id] = rng.getrandbits(32) if self.cfg.timestamps and id != 5 else None

    def four_tuple(self) -> tuple[dict[str, int], int | None]:
        """Any; where there is IPv6, more often one of that, with the peer's address."""
        rng = self.rng
        four_tuple = {"laddr": rng.randrange(1 << 24, 1 << 32), "faddr": rng.getrandbits(32),
                      "lport": rng.getrandbits(16), "fport": rng.getrandbits(16)}  # fmt: skip
        if not self.cfg.ipv6 or rng.random() < 0.35:
            return four_tuple, None
        return four_tuple | {"laddr": LADDR_V6}, rng.choice([rng.getrandbits(128), (1 << 128) - 1, 1])

    # Jobs

    def segment(self, length: int = 0, *, id: int | None = None, position: int | None = None,
                flags: int = FLAGS_DATA, error: bool = False, sacks: int = 0, twice: bool = False,
                received: Received | None = None) -> Job:  # fmt: skip
        rng = self.rng
        received = self.received() if received is None else received
        ts_ok = self.stamped()
        sacks = min(sacks, 3) if ts_ok else sacks
        return Job(SEGMENT, {
            "id": next(self.ids) % 8 if id is None else id, "seq": rng.getrandbits(32), "ack": rng.getrandbits(32),
            "flags": flags, "wnd": rng.getrandbits(16),
            "position": rng.getrandbits(32) if position is None else position, "length": length,
            "mss": rng.getrandbits(16), "ws_present": rng.getrandbits(1), "ws": rng.randrange(15),
            "sack_ok": rng.getrandbits(1), "sacks": sacks, "urgent": 0 if flags >> SYN & 1 else rng.getrandbits(16),
            "ect": rng.getrandbits(1), "twice": twice, "twice_start": rng.getrandbits(32), "ts_ok": ts_ok,
        }, error, received)  # fmt: skip

    def stamped(self) -> int:
        """Most segments carry timestamps, if there are any."""
        return int(self.cfg.timestamps and self.rng.random() < 0.7)

    def received(self, number: int | None = None, newest: int | None = None) -> Received:
        """Intervals in order, the sequence numbers' wrap-around among them now and then."""
        rng = self.rng
        number = rng.randrange(self.cfg.ooo_intervals + 1) if number is None else number
        at = rng.choice([rng.getrandbits(32), (1 << 32) - 700])
        edges = [at := at + rng.choice([1, 100, 0x10101, rng.randrange(1, 1 << 16)]) for _ in range(2 * number)]
        edges = [edge % (1 << 32) for edge in edges]
        newest = rng.randrange(4) if newest is None else newest
        return Received(list(zip(edges[::2], edges[1::2], strict=True)), newest)

    def control(self, flags: int = 1 << SYN | 1 << ACK) -> Job:
        rng = self.rng
        four_tuple, faddr6 = self.four_tuple()
        return Job(CONTROL, {
            "tuple": four_tuple, **({"faddr6": faddr6 or 0} if self.cfg.ipv6 else {}),
            "dmac": rng.getrandbits(48), "seq": rng.getrandbits(32), "ack": rng.getrandbits(32),
            "flags": flags, "wnd": rng.getrandbits(16),
            "mss": rng.getrandbits(16), "ws_present": rng.getrandbits(1), "ws": rng.randrange(15),
            "sack_ok": rng.getrandbits(1), "ts_ok": self.stamped(), "tsecr": rng.getrandbits(32),
            "says_options": flags >> SYN & rng.getrandbits(1),
            "options": {"ws": rng.randrange(16), "sack_ok": rng.getrandbits(1), "ecn_ok": rng.getrandbits(1)},
        })  # fmt: skip

    def frame(self, length: int, *, error: bool = False) -> Job:
        return Job(
            FRAME, {"addr": self.rng.randrange(self.rings_end, 2 * self.rings_end - 16384), "length": length}, error
        )

    def mixed(self, count: int) -> list[Job]:
        """Any frames: all sources, options, lengths."""
        rng = self.rng
        jobs = []
        for _ in range(count):
            kind = rng.randrange(8)
            if kind < 3:
                length = rng.choice([1, 2, 3, 5, 6, 7, 8, 30, rng.randrange(1, 1425)])
                jobs.append(self.segment(length, sacks=rng.choice([0, 0, rng.randrange(5)])))
            elif kind == 3 and rng.getrandbits(1):
                jobs.append(self.segment(sacks=rng.randrange(1, 5), twice=rng.random() < 0.5))
            elif kind == 3:
                jobs.append(self.segment(flags=rng.choice([1 << ACK, 1 << SYN, 1 << RST, rng.getrandbits(8)])))
            elif kind < 6:
                jobs.append(self.control(rng.choice([1 << SYN | 1 << ACK, 1 << RST, 1 << RST | 1 << ACK])))
            else:
                jobs.append(self.frame(rng.choice([14, 42, 60, 61, 64, rng.randrange(14, 1515)])))
        return jobs

    # Reference

    def ring_bytes(self, job: Job) -> bytes:
        ring, at = self.endpoints[job.message["id"]], job.message["position"]
        size = 1 << ring.log2
        return bytes(self.memory[ring.base + (at + n) % size] for n in range(job.length))

    def is_bad(self, job: Job) -> bool:
        """Too long or too short to be sent."""
        if job.source == FRAME:
            return not 14 <= job.length <= self.cfg.max_frame_bytes
        # Behind a SYN's options, only what fits with all of them.
        stamps = 12 * job.message.get("ts_ok", 0)
        options = 12 + stamps if job.source == SEGMENT and self._is_syn(job) else self._option_bytes(job)
        return 54 + 20 * self.is_v6(job) + options + job.length > self.cfg.max_frame_bytes

    def is_v6(self, job: Job) -> bool:
        """Its header is one of IPv6."""
        if job.source == SEGMENT:
            return self.endpoints[job.message["id"]].faddr6 is not None
        return job.source == CONTROL and job.message["tuple"]["laddr"] == LADDR_V6

    @staticmethod
    def _is_syn(job: Job) -> bool:
        return bool(job.message["flags"] >> SYN & 1)

    def _option_bytes(self, job: Job) -> int:
        message = job.message
        stamps = 12 * message["ts_ok"]
        if self._is_syn(job):
            return 4 * (1 + message["ws_present"] + message["sack_ok"]) + stamps
        sacks = message.get("sacks", 0)
        return stamps + (4 + 8 * sacks if sacks else 0)

    def stamps(self, job: Job) -> list[tuple[str, Any]]:
        """The timestamps option: the clock and ISS, which is the position behind a segment's."""
        message = job.message
        if not message["ts_ok"]:
            return []
        if job.source == SEGMENT:
            iss, echo = message["seq"] - message["position"] - 1, self.echoes[message["id"]] or 0
        else:
            iss, echo = message["seq"] - 1 + (message["flags"] >> SYN & 1), message["tsecr"]
        echo = echo if message["flags"] >> ACK & 1 else 0
        tsval = self.ts_now + iss
        if message.get("says_options"):
            said = message["options"]
            tsval -= (tsval - (said["ws"] | said["sack_ok"] << 4 | said["ecn_ok"] << 5)) % 64
        return [("NOP", None)] * 2 + [("Timestamp", (tsval % (1 << 32), echo))]

    @staticmethod
    def _syn_options(message: dict[str, Any], stamps: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
        nop = ("NOP", None)
        found: list[tuple[str, Any]] = [("MSS", message["mss"]), *stamps]
        if message["ws_present"]:
            found += [nop, ("WScale", message["ws"])]
        if message["sack_ok"]:
            found += [nop, nop, ("SAckOK", b"")]
        return found

    def blocks(self, job: Job) -> list[tuple[int, int]]:
        """The SACK blocks of a segment, D-SACK among them."""
        message = job.message
        received = Received() if self.unknown else job.received
        if not message["twice"]:
            return received.blocks(message["sacks"])
        start = message["twice_start"]
        return received.blocks_with_twice(message["sacks"], (start, (start + message["mss"]) % 2**32), message["ack"])

    def options(self, job: Job, blocks: list[tuple[int, int]] | None = None) -> list[tuple[str, Any]]:
        """TCP options, as scapy has them; with these blocks, or those of the list."""
        message, nop = job.message, ("NOP", None)
        if self._is_syn(job):
            return self._syn_options(message, self.stamps(job))
        if not (sacks := message.get("sacks", 0)):
            return self.stamps(job)
        if blocks is None:
            blocks = self.blocks(job)
        edges = tuple(edge for block in blocks for edge in block)
        return [
            *self.stamps(job),
            nop,
            nop,
            *([("SAck", edges)] if blocks else [nop] * 2),
            *[nop] * 8 * (sacks - len(blocks)),
        ]

    def reference(self, job: Job, identification: int, blocks: list[tuple[int, int]] | None = None) -> bytes:
        """The frame by scapy."""
        message = job.message
        ttl, tos = TTL, TOS
        if job.source == FRAME:
            frame = bytes(self.memory[message["addr"] : message["addr"] + job.length])
            return frame + bytes(max(0, 60 - len(frame)))
        if job.source == SEGMENT:
            endpoint = self.endpoints[message["id"]]
            dmac = self.hops[endpoint.next_hop] if endpoint.use_next_hop else endpoint.dmac
            tuple_, payload = endpoint.tuple, self.ring_bytes(job)
            ttl, tos = endpoint.ip_header or (ttl, tos)
            faddr6 = endpoint.faddr6
        else:
            tuple_, dmac, payload = message["tuple"], message["dmac"], b""
            faddr6 = message.get("faddr6")
        tos = tos & 0xFC | 2 * message.get("ect", 0)  # the host has no say in ECN's bits
        if self.is_v6(job):
            header = Ether(type=0x86DD) / IPv6(src=ip6_text(IP6), dst=ip6_text(faddr6 or 0), tc=tos, hlim=ttl)
        else:
            header = Ether(type=0x0800) / IP(
                src=ip_text(tuple_["laddr"]),
                dst=ip_text(tuple_["faddr"]),
                tos=tos,
                ttl=ttl,
                id=identification,
                flags="DF",
            )
        header.src, header.dst = mac_text(MAC), mac_text(dmac)
        packet = (
            header
            / TCP(sport=tuple_["lport"], dport=tuple_["fport"], seq=message["seq"], ack=message["ack"],
                  flags=message["flags"], window=message["wnd"], urgptr=message.get("urgent", 0),
                  options=self.options(job, blocks))
            / payload
        )  # fmt: skip
        frame = bytes(packet)
        return frame + bytes(max(0, 60 - len(frame)))

    # Benches

    async def setup(self, ctx: Any) -> None:
        dut = self.dut
        ctx.set(dut.mac, MAC)
        if self.cfg.ipv6:
            ctx.set(dut.ip6, IP6)
        ctx.set(dut.ttl, TTL)
        ctx.set(dut.tos, TOS)
        ctx.set(dut.ts_now, self.ts_now)
        for index, mac in enumerate(self.hops):
            ctx.set(dut.next_hop.payload, {"index": index, "mac": mac})
            ctx.set(dut.next_hop.valid, 1)
            await ctx.tick()
        ctx.set(dut.next_hop.valid, 0)
        for id, one in self.endpoints.items():
            ctx.set(dut.ring.payload, {"id": id, "base": one.base, "log2": one.log2})
            ctx.set(dut.ring.valid, 1)
            await ctx.tick()
        ctx.set(dut.ring.valid, 0)
        for id, one in self.endpoints.items():
            values = [(1, 1, 2), (0, 3, 4)]  # the last write counts
            if one.ip_header:
                values.append((1, *one.ip_header))
            for own, ttl, tos in values:
                ctx.set(dut.ip_header.payload, {"id": id, "own": own, "ttl": ttl, "tos": tos})
                ctx.set(dut.ip_header.valid, 1)
                await ctx.tick()
        ctx.set(dut.ip_header.valid, 0)
        # Both endpoint writers at once, each with half of the ids.
        waiting = [[id for id in self.endpoints if id % 2 == which] for which in (0, 1)]
        while any(waiting):
            for port, ids in zip(dut.endpoint, waiting, strict=True):
                ctx.set(port.valid, int(bool(ids)))
                if ids:
                    one = self.endpoints[ids[0]]
                    ctx.set(port.payload, {"id": ids[0], "endpoint": {
                        "tuple": one.tuple, "dmac": one.dmac, "use_next_hop": one.use_next_hop,
                        "next_hop": one.next_hop, **({"faddr6": one.faddr6 or 0} if self.cfg.ipv6 else {}),
                    }})  # fmt: skip
            _, _, *ready = await ctx.tick().sample(dut.endpoint[0].ready, dut.endpoint[1].ready)
            for ids, took in zip(waiting, ready, strict=True):
                if ids and took:
                    ids.pop(0)
        for port in dut.endpoint:
            ctx.set(port.valid, 0)
        await ctx.tick().repeat(4)
        self.configured = True

    echoes: dict[int, int | None] = field(default_factory=dict)  # TS.Recent of every connection, if there is one
    configured: bool = False
    cycle: int = 0
    ids: Iterator[int] = field(default_factory=count)  # in turn: a list is not changed while it is read
    lists: dict[int, Received] = field(default_factory=dict)  # of every connection, at the moment

    writes: list[tuple[int, int, Received]] = field(default_factory=list)  # cycle, id, what is held then

    async def _stamp(self, ctx: Any) -> None:
        """TS.Recent two cycles after the question."""
        dut, rng = self.dut, self.rng
        before = None
        async for _, _, id in ctx.tick().sample(dut.stamp_id):
            echo = self.echoes.get(before)
            tsval = rng.getrandbits(32) if echo is None else echo
            ctx.set(dut.stamp, {"known": int(echo is not None), "tsval": tsval})
            before = id

    async def _sack(self, ctx: Any) -> None:
        """Answers two cycles after the question with what was held in the question's cycle; between two answers, rubbish
        that is not known."""
        dut, rng, places = self.dut, self.rng, self.cfg.ooo_intervals
        answer: Any = None
        async for _, _, id in ctx.tick().sample(dut.sack_id):
            rubbish = [{"start": rng.getrandbits(32), "end": rng.getrandbits(32)} for _ in range(places)]
            before = {"known": 0, "valid": rng.getrandbits(places), "newest": rng.randrange(4), "intervals": rubbish}
            ctx.set(dut.sack, answer or before)
            answer = None
            held = self.lists.get(id)
            written = {at: received for due, at, received in self.writes if due <= self.cycle}
            self.writes = [write for write in self.writes if write[0] > self.cycle]
            self.lists.update(written)
            if id not in written and held is not None and not self.unknown:
                valid = (1 << len(held.intervals)) - 1
                intervals = [{"start": start, "end": end} for start, end in held.intervals] + rubbish
                answer = {"known": 1, "valid": valid, "newest": held.newest, "intervals": intervals[:places]}

    def _source(self, name: str, jobs: list[Job]) -> Any:
        port = getattr(self.dut, name)

        async def bench(ctx: Any) -> None:
            while not self.configured:
                await ctx.tick()
            for job in jobs:
                while self.rng.random() < self.idle:
                    await ctx.tick()
                if name == SEGMENT:
                    self.lists[job.message["id"]] = job.received
                    if job.rewritten:
                        self.writes.append((self.cycle + job.rewritten[0], job.message["id"], job.rewritten[1]))
                ctx.set(port.payload, job.message)
                ctx.set(port.valid, 1)
                await ctx.tick().until(port.ready)
                ctx.set(port.valid, 0)
                self.accepted.append(job)

        return bench

    def _words(self, request: dict[str, int]) -> list[int]:
        """What the DMA reader gives: memory's alignment, rubbish around the bytes."""
        step = self.cfg.bytes_per_beat
        at, left, words = request["addr"], request["length"], []
        size = 1 << request["wrap_log2"] if request["wrap_log2"] else 0
        while left:
            lane = at % step
            take = min(step - lane, left)
            word = bytearray(self.rng.randbytes(step))
            word[lane : lane + take] = self.memory[at : at + take]
            words.append(int.from_bytes(word, "little"))
            left -= take
            at += take
            if size and at % size == 0:
                at -= size
        return words

    async def _memory(self, ctx: Any) -> None:
        """Accepts requests at any time; answers in order, each ``latency`` cycles later, a word a cycle."""
        dut, words = self.dut, deque()
        errors: deque[bool] = deque()  # of the requests to come
        seen = 0
        while True:
            valid = bool(words) and words[0][0] <= self.cycle and self.rng.random() >= self.slow
            ctx.set(dut.data.valid, int(valid))
            ctx.set(dut.data.payload, words[0][1] if valid else {"data": 0, "last": 1, "error": 1})
            ctx.set(dut.request.ready, 1)
            while valid:
                _, _, ready, requested, request = await ctx.tick().sample(
                    dut.data.ready, dut.request.valid, dut.request.payload
                )
                seen = self._request(requested, request, words, errors, seen)
                if ready:
                    words.popleft()
                    break
            else:
                _, _, requested, request = await ctx.tick().sample(dut.request.valid, dut.request.payload)
                seen = self._request(requested, request, words, errors, seen)

    def _request(self, valid: int, request: Any, words: deque, errors: deque, seen: int) -> int:
        while seen < len(self.accepted):
            job = self.accepted[seen]
            if job.length and not self.is_bad(job):
                errors.append(job.error)
            seen += 1
        if valid:
            request = to_py(request)
            self.requested.append(request)
            error = errors.popleft()
            read = self._words(request)
            for n, word in enumerate(read):
                last = int(n == len(read) - 1)
                # In any word but the last, error means nothing.
                flag = int(error) if last else self.rng.getrandbits(1)
                words.append((self.cycle + self.latency, {"data": word, "last": last, "error": flag}))
        return seen

    async def _done(self, ctx: Any) -> None:
        while True:
            while self.rng.random() < self.done_stall or self.done_after not in (None, *self.accepted):
                await ctx.tick()
            self.statuses.append((await stream_get(ctx, self.dut.frame_done))["status"])

    async def _monitor(self, ctx: Any) -> None:
        dut = self.dut
        names = ("count_tx_frames", "count_tx_segments", "count_tx_rst", "count_tx_dropped")
        self.counts.update(dict.fromkeys(names, 0))
        pulses = [getattr(dut, name) for name in names]
        marked = {"segment": dut.segment, "request": dut.request, "data": dut.data, "o": dut.o}
        watched = Cat(port.valid for port in marked.values())
        async for _, _, valids, valid, ready, last, failed, event, *counts in ctx.tick().sample(
            watched, dut.o.valid, dut.o.ready, dut.o.payload.last, dut.error.valid, dut.error.payload, *pulses
        ):
            for n, name in enumerate(marked):
                if valids >> n & 1:
                    self.marks.setdefault(name, self.cycle)
            for name, pulse in zip(names, counts, strict=True):
                self.counts[name] += pulse
            if valid and ready:
                self.beat_cycles.append((self.cycle, last))
            if failed:
                self.errors.append(to_py(event))
            self.cycle += 1

    def run(self, jobs: list[Job], *, hold: int = 0, max_cycles: int = 60_000) -> list[bytes]:
        """Send all jobs, each source's in order; ``hold``: cycles before ``o`` is taken at all. Returns the frames."""
        good = [job for job in jobs if not self.is_bad(job) and not job.error]
        segments = sum(job.source == SEGMENT for job in jobs)
        beats = sum(-(-max(60, self._size(job)) // self.cfg.bytes_per_beat) for job in good)
        frames: list[bytes] = []

        async def sink(ctx: Any) -> None:
            await ctx.tick().repeat(1 + hold)
            frames.extend(beats_frames(await recv_n(
                ctx, self.dut.o, beats, stall=self.stall, rng=random.Random(self.rng.random())
            )))  # fmt: skip
            ctx.set(self.dut.o.ready, 1)
            # Dropped frames behind the last one are read past, a beat a cycle; nothing more may come out.
            hosts = sum(job.source == FRAME for job in jobs)
            quiet = 0
            while quiet < 40 + 4 * self.latency:
                _, _, valid, segments_done = await ctx.tick().sample(self.dut.o.valid, self.dut.segments_done)
                assert not valid, "more beats than expected"
                all_done = segments_done == segments % 256 and len(self.statuses) == hosts
                quiet = quiet + 1 if all_done and len(self.accepted) == len(jobs) else 0
            assert ctx.get(self.dut.segments_done) == segments % 256

        run_bench(
            self.dut, self.setup, sink,
            *(self._source(name, [job for job in jobs if job.source == name])
              for name in (SEGMENT, CONTROL, FRAME)),
            background=[self._monitor, self._memory, self._done, self._sack, self._stamp, watch_stream(self.dut.o, "o"),
                        watch_stream(self.dut.request, "request"), watch_stream(self.dut.frame_done, "frame_done")],
            max_cycles=max_cycles,
            key=repr(self.cfg),
        )  # fmt: skip
        if not self.lenient:
            self.check(frames)
        return frames

    def _size(self, job: Job) -> int:
        return job.length if job.source == FRAME else 54 + 20 * self.is_v6(job) + self._option_bytes(job) + job.length

    def check(self, frames: list[bytes]) -> None:
        """Frames, in the order of acceptance, counters, events and statuses."""
        identification, expected, statuses, errors = -1, [], [], []  # the first segment is number 0
        for job in self.accepted:
            bad = self.is_bad(job)
            if job.source != FRAME and not bad:
                identification = (identification + 1) % 65536
            if not bad and not job.error:
                expected.append((job, self.reference(job, identification)))
            if job.source == FRAME:
                statuses.append(Status.BAD_ARGUMENT if bad else Status.DMA_ERROR if job.error else Status.OK)
            elif job.error and not bad:
                errors.append({"code": 4, "argument": job.message["id"]})
        assert len(frames) == len(expected)
        for n, (frame, (job, other)) in enumerate(zip(frames, expected, strict=True)):
            assert frame == other, f"frame {n} of {job}:\n{frame.hex(' ')}, expected\n{other.hex(' ')}"
            if job.source != FRAME:
                assert Ether(frame)[TCP].options == self.options(job)
        tcp = [job for job, _ in expected if job.source != FRAME]
        assert self.counts == {
            "count_tx_frames": len(expected),
            "count_tx_segments": len(tcp),
            "count_tx_rst": sum(job.message["flags"] >> RST & 1 for job in tcp),
            "count_tx_dropped": len(self.accepted) - len(expected),
        }
        assert self.statuses == statuses
        assert self.errors == errors

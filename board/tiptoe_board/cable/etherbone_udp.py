"""Etherbone over a UDP socket, so that packets lost, repeated, late or out of order change nothing.

Every packet has the next number, and the board carries out only the one that follows the last (``guard.SequenceGuard``): each
once, in order. So a packet is sent as soon as it is made, up to what the board's queue holds, and kept until it is known to have
arrived. The answer to a read tells that it and all before it have. When no answer comes, the board is asked for the number of
the last packet it took, in a packet without a number, again and again: what comes after that one is sent again; if there is
nothing, the read's answer was lost, and it is read again under a new number: no register or word of memory changes by being read.

Why every wait ends: a question is repeated, at growing intervals, until the board has said nothing for ``patience_s``; answers
that bring nothing forward are counted. Answers are known by the tag that comes back; a late one has another.
"""

from __future__ import annotations

import random
import socket
import time
from collections import deque
from dataclasses import dataclass

from ..address_map import status_address
from ..etherbone import LONGEST, NUMBERED, NUMBERS, UDP_PORT, NotEtherbone, parse_answer, read_packet, write_packet
from .fault import CableError
from .words import GREETING, check_greeting

_OVERHEAD, _ROOM = 15, 500
"""Words of a packet's headers, and of all packets that may be on their way when a read is sent behind them: the board's queue
holds 1,023."""
_MOST_PACKETS = _ROOM // (_OVERHEAD + 1) + 1
_LEAST_WAIT_S, _FIRST_WAIT_S, _MOST_WAIT_S = 0.005, 0.2, 0.5
_STUCK = 16
"""Answers in a row that tell of no progress, and as many of a read carried out whose own answer does not come."""
_LONGEST_PAYLOAD = 2048


@dataclass(frozen=True)
class _Packet:
    number: int
    payload: bytes
    cost: int


class EtherboneCable:
    """The board's words behind UDP.

    Parameters
    ----------
    host : str
        The bridge's name or address.
    port : int
        Of UDP. LiteEth answers to the same port here, so that one process of a machine can speak to a board.
    patience_s : float
        How long the board may be silent.
    build : int, optional
        The build that it has to have.

    Attributes
    ----------
    name : str
        The URL.
    greeting : dict
        The status words ``build``, ``clock``, ``memory`` as they were found.
    sent, repeated, asked, late, strange : int
        Packets sent, those of them sent again; questions for the last number; answers that came too late; payloads that are no
        answers.
    """

    once = True

    def __init__(self, host: str, port: int = UDP_PORT, *, patience_s: float = 3.0, build: int | None = None) -> None:
        self.name = f"etherbone://{host}" + (f":{port}" if port != UDP_PORT else "")
        self._patience_s = patience_s
        self._unanswered: deque[_Packet] = deque()
        self._cost = 0
        self._last = 0
        """Number of the last packet that is known to have arrived."""
        self._next = 1
        self._question = random.getrandbits(30)
        self._wait_s, self._mean_s, self._deviation_s = _FIRST_WAIT_S, 0.0, 0.0
        self._trouble: OSError | None = None
        self.sent = self.repeated = self.asked = self.late = self.strange = 0
        self._socket = _open(self.name, host, port)
        try:
            self._greet(build)
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        """Close the socket. Twice does no harm."""
        self._socket.close()

    def counters(self) -> dict[str, int]:
        """What had to be done for it."""
        return {name: getattr(self, name) for name in ("sent", "repeated", "asked", "late", "strange")}

    # --- words ---

    def read_at(self, addresses: list[int]) -> list[int]:
        """See :class:`~tiptoe_board.cable.words.Words`."""
        words: list[int] = []
        while len(words) < len(addresses):
            words += self._read(addresses[len(words) : len(words) + LONGEST])
        return words

    def write(self, address: int, words: list[int]) -> None:
        """See :class:`~tiptoe_board.cable.words.Words`."""
        for at in range(0, len(words), LONGEST):
            piece = words[at : at + LONGEST]
            if self._cost + len(piece) + _OVERHEAD > _ROOM:
                self._read([status_address("build")])
            self._post(write_packet(address + 4 * at, piece, self._next), len(piece))

    # --- the beginning ---

    def _greet(self, build: int | None) -> None:
        """See what is there and take up its numbers. What a session before us had on its way must not be taken for ours: as
        many numbers as it can have used are passed by."""
        addresses = [*GREETING, status_address("sequence")]
        tag = self._ask(addresses)
        begin, wait_s = time.monotonic(), self._wait_s
        while (answer := self._receive({tag}, wait_s)) is None or len(answer[1]) != len(addresses):
            if time.monotonic() - begin > self._patience_s:
                raise self._silence()
            wait_s = min(2 * wait_s, _MOST_WAIT_S)
            tag = self._ask(addresses)
        *words, self._last = answer[1]
        self.greeting = check_greeting(self.name, words, build)
        self._next = self._last + 1 & NUMBERS
        for _ in range(_MOST_PACKETS - 1):
            self._post(self._reading([status_address("build")]), 1)
        self._read([status_address("build")])
        self.late = 0  # nobody waited for those

    # --- packets ---

    def _reading(self, addresses: list[int]) -> bytes:
        return read_packet(addresses, NUMBERED | self._next, self._next)

    def _post(self, payload: bytes, words: int) -> int:
        """Send the packet that has the next number, and keep it; returns its number."""
        packet = _Packet(self._next, payload, words + _OVERHEAD)
        self._next = self._next + 1 & NUMBERS
        self._unanswered.append(packet)
        self._cost += packet.cost
        self._send(payload)
        return packet.number

    def _send(self, payload: bytes) -> None:
        self.sent += 1
        try:
            self._socket.send(payload)
        except OSError as error:  # an interface that is down now may be up when the packet is repeated
            self._trouble = error

    def _ask(self, addresses: list[int]) -> int:
        """Read outside of the numbers; returns the answer's tag."""
        self._question = self._question + 1 & NUMBERS
        self.asked += 1
        self._send(read_packet(addresses, self._question))
        return self._question

    def _receive(self, tags: set[int], wait_s: float) -> tuple[int, list[int]] | None:
        """The next answer with one of the tags; None when none comes."""
        end = time.monotonic() + wait_s
        while (left := end - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                payload = self._socket.recv(_LONGEST_PAYLOAD)
            except TimeoutError:
                break
            except OSError as error:  # what ICMP says of packets before
                self._trouble = error
                continue
            try:
                tag, words = parse_answer(payload)
            except NotEtherbone:
                self.strange += 1
                continue
            if tag in tags:
                return tag, words
            self.late += 1
        return None

    # --- a read, and with it everything before it ---

    def _read(self, addresses: list[int]) -> list[int]:
        """At most LONGEST words."""
        number = self._post(self._reading(addresses), len(addresses))
        sent_at = {NUMBERED | number: time.monotonic()}
        """Tags of this read; those of packets that were sent once have a round trip to tell (Karn)."""
        once = set(sent_at)
        heard, wait_s, question, stuck = time.monotonic(), self._wait_s, -1, 0
        while True:
            answer = self._receive({*sent_at, question}, wait_s)
            now = time.monotonic()
            if answer is None:
                if now - heard > self._patience_s:
                    raise self._silence()
                question = self._ask([status_address("sequence"), status_address("build")])
                wait_s = min(2 * wait_s, _MOST_WAIT_S)
                continue
            heard = now
            tag, words = answer
            if tag in sent_at:
                if len(words) == len(addresses):
                    if tag in once:
                        self._measure(now - sent_at[tag])
                    if self._ahead(tag & NUMBERS) <= len(self._unanswered):  # else it is known already
                        self._arrived(tag & NUMBERS)
                    return words
                self.strange += 1
                continue
            question = -1
            if self._arrived(words[0], words[1]):
                stuck, wait_s = 0, self._wait_s
            else:
                stuck += 1
            if stuck > _STUCK or len(sent_at) > _STUCK:
                length = len(self._unanswered[0].payload if stuck else read_packet(addresses))
                raise CableError(
                    f"{self.name} answers, but packets of {length} bytes do not get through: look for a filter or a small MTU on "
                    "the way"
                )
            if self._unanswered:
                once.clear()
                for packet in self._unanswered:
                    self.repeated += 1
                    self._send(packet.payload)
            else:
                tag = NUMBERED | self._post(self._reading(addresses), len(addresses))
                sent_at[tag] = time.monotonic()
                once.add(tag)

    def _ahead(self, number: int) -> int:
        return number - self._last & NUMBERS

    def _arrived(self, last: int, build: int | None = None) -> bool:
        """Everything up to that number has; whether that is news. CableError when it cannot be."""
        count = self._ahead(last)
        if count > len(self._unanswered) or build not in (None, self.greeting["build"]):
            raise CableError(
                f"{self.name} is not where this session left it (packet {last}, not {self._last}): it was started anew, or "
                "another program drives it; begin again"
            )
        for _ in range(count):
            self._cost -= self._unanswered.popleft().cost
        self._last = last
        return bool(count)

    def _measure(self, trip_s: float) -> None:
        """How long to wait, as RFC 6298 does it for TCP."""
        if not self._mean_s:
            self._mean_s, self._deviation_s = trip_s, trip_s / 2
        else:
            self._deviation_s += (abs(trip_s - self._mean_s) - self._deviation_s) / 4
            self._mean_s += (trip_s - self._mean_s) / 8
        self._wait_s = min(max(self._mean_s + 4 * self._deviation_s, _LEAST_WAIT_S), _MOST_WAIT_S)

    def _silence(self) -> CableError:
        why = f" ({self._trouble.strerror})" if self._trouble is not None and self._trouble.strerror else ""
        return CableError(
            f"{self.name}: no answer for {self._patience_s:g} s{why}: look at the cable, the address (ping it), the board's "
            "power, and that its bitstream is loaded (make load BOARD=...)"
        )


def _open(name: str, host: str, port: int) -> socket.socket:
    """A socket towards the bridge, on the port that it answers to."""
    try:
        address = socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_DGRAM)[0][4]
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    except OSError as error:
        raise CableError(f"{name}: unknown host ({error.strerror})") from None
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(address)
            own = probe.getsockname()[0]
        made.bind((own, port))
        made.connect(address)
    except OSError as error:
        made.close()
        raise CableError(
            f"{name}: no socket on UDP port {port} of this machine ({error.strerror}): another program may have it "
            "(litex_server, another session), or there is no route"
        ) from None
    return made

"""ARP (RFC 826): from a neighbour's IPv4 address to its MAC address, with retries and waiting users.

What is known ages (RFC 1122 section 2.3.2.1): the neighbour is asked again, alone at first and then with everybody. Until it
answers, its old address stays in use: who was only slow to answer has lost nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from .clock import Callout, Clock

ETHERTYPE_ARP = 0x0806
BROADCAST = 0xFFFF_FFFF_FFFF
_HEADER = bytes.fromhex("000108000604")  # Ethernet, IPv4, lengths of their addresses
OP_REQUEST = 1
OP_REPLY = 2

Waiter = Callable[[int | None], None]
"""Called with the MAC address, or None when the neighbour does not answer."""


def arp_packet(operation: int, smac: int, sip: int, tmac: int, tip: int) -> bytes:
    """An ARP packet (28 bytes) for IPv4 over Ethernet."""
    return _HEADER + operation.to_bytes(2) + smac.to_bytes(6) + sip.to_bytes(4) + tmac.to_bytes(6) + tip.to_bytes(4)


@dataclass(slots=True, eq=False)
class ArpEntry:
    """A neighbour: resolved when ``mac`` is not None. ``heard_us``: when it was heard of; ``tries``: requests since.
    ``wanted``: somebody has asked for it. ``static``: it was told, not heard of, and stays."""

    mac: int | None = None
    waiters: list[Waiter] = field(default_factory=list)
    tries: int = 0
    heard_us: int = 0
    wanted: bool = False
    static: bool = False
    timer: Callout | None = None


class ArpTable:
    """ARP of one interface.

    Parameters
    ----------
    transmit : callable
        Sends an ARP packet to a MAC address.
    changed : callable
        Told when a known neighbour has another MAC address: IP, MAC.
    retry_us, tries : int
        Interval and number of requests before a neighbour counts as down.
    down_us : int
        How long it does, unless it is heard of.
    age_us : int
        How long an address is good without its neighbour being heard of; 0: for ever.

    Attributes
    ----------
    used : callable
        Whether somebody uses a neighbour: then its address is renewed when it is old, and not forgotten.
    """

    LIMIT = 1024
    """Neighbours remembered; the oldest resolved one makes room."""

    def __init__(
        self,
        stack: Clock,
        mac: int,
        address: int,
        transmit: Callable[[int, bytes], object],
        changed: Callable[[int, int], None],
        retry_us: int,
        tries: int,
        down_us: int,
        age_us: int = 0,
    ) -> None:
        self.used: Callable[[int], bool] = lambda ip: False
        self._stack = stack
        self._mac = mac
        self._address = address
        self._transmit = transmit
        self._changed = changed
        self._retry_us = retry_us
        self._tries = tries
        self._down_us = down_us
        self._age_us = age_us
        self._entries: dict[int, ArpEntry] = {}
        self._down: dict[int, int] = {}  # time until which a neighbour counts as down

    def lookup(self, ip: int) -> int | None:
        """MAC address of ``ip`` if known."""
        entry = self._entries.get(ip)
        if entry is None or entry.mac is None:
            return None
        if self._age_us and entry.timer is None and not entry.static:  # the device has stood meanwhile
            left = entry.heard_us + self._age_us - self._stack.now_us()
            if left <= 0:
                del self._entries[ip]
                return None
            entry.timer = self._stack.callout(left, lambda: self._grown_old(ip, entry))
        return entry.mac

    def add_static(self, ip: int, mac: int) -> None:
        """``ip`` has this MAC address for good: it is never asked for, and nothing heard changes it (arp -s)."""
        self._entries[ip] = ArpEntry(mac=mac, static=True)

    def down(self, ip: int) -> bool:
        """Whether ``ip`` has not answered, a short time ago."""
        return ip in self._down and self._stack.now_us() < self._down[ip]

    def resolve(self, ip: int, waiter: Waiter) -> None:
        """Call ``waiter`` with the MAC address of ``ip``: at once if known, later, or with None."""
        mac = self.lookup(ip)
        entry = self._entries.get(ip)
        if mac is not None and entry is not None:
            entry.wanted = True
            waiter(mac)
            return
        if entry is None:
            entry = self._entries[ip] = ArpEntry()
            entry.waiters.append(waiter)
            self._request(ip, entry)
        else:
            entry.waiters.append(waiter)

    def input(self, packet: memoryview, *, answer: bool = True) -> bool:
        """An ARP packet came; whether it was a sound one. ``answer``: requests for our address are ours to answer."""
        if len(packet) < 28 or bytes(packet[:6]) != _HEADER:
            return False
        operation = int.from_bytes(packet[6:8])
        smac, sip = int.from_bytes(packet[8:14]), int.from_bytes(packet[14:18])
        tip = int.from_bytes(packet[24:28])
        if operation not in (OP_REQUEST, OP_REPLY) or smac >> 40 & 1 or not smac:
            return False
        if sip == self._address:
            return True  # somebody claims our address: not to be learned
        self._news(sip, smac, asked=bool(operation == OP_REQUEST and tip == self._address and sip))
        if answer and operation == OP_REQUEST and tip == self._address:
            self._transmit(smac, arp_packet(OP_REPLY, self._mac, self._address, smac, sip))
        return True

    def stop(self) -> None:
        """Ask no more; those who wait are forgotten without a word. What is known stays known."""
        for ip, entry in list(self._entries.items()):
            if entry.timer is not None:
                entry.timer.cancel()
                entry.timer = None
            if entry.mac is None:
                del self._entries[ip]

    def announce(self) -> None:
        """Gratuitous ARP: tell everybody our address."""
        self._transmit(BROADCAST, arp_packet(OP_REQUEST, self._mac, self._address, 0, self._address))

    def _news(self, ip: int, mac: int, *, asked: bool) -> None:
        """A neighbour was heard of. ``asked``: it asked for us, so it is to be remembered."""
        self._down.pop(ip, None)
        if ip in self._entries:
            if not self._entries[ip].static:
                self._learn(ip, mac)
        elif asked:
            self._make_room()
            self._entries[ip] = ArpEntry(mac=mac)
            self._heard(ip, self._entries[ip])

    def _ask(self, ip: int, mac: int | None) -> None:
        """Ask a neighbour at this MAC address, or everybody."""
        target = BROADCAST if mac is None else mac
        self._transmit(target, arp_packet(OP_REQUEST, self._mac, self._address, mac or 0, ip))

    def _learn(self, ip: int, mac: int) -> None:
        entry = self._entries[ip]
        known, entry.mac = entry.mac, mac
        self._heard(ip, entry)
        if known is None:
            waiters, entry.waiters = entry.waiters, []
            for waiter in waiters:
                waiter(mac)
        elif known != mac:
            self._changed(ip, mac)

    def doubt(self, ip: int) -> None:
        """Nothing comes back from behind this neighbour: ask now whether it is still there."""
        entry = self._entries.get(ip)
        if entry is not None and entry.mac is not None and not entry.tries and not entry.static:
            self._renew(ip, entry)

    def _heard(self, ip: int, entry: ArpEntry) -> None:
        """The neighbour has this address now."""
        if entry.timer is not None:
            entry.timer.cancel()
        entry.tries = 0
        entry.heard_us = self._stack.now_us()
        entry.timer = self._stack.callout(self._age_us, lambda: self._grown_old(ip, entry)) if self._age_us else None

    def _grown_old(self, ip: int, entry: ArpEntry) -> None:
        if self._wanted(ip, entry):
            self._renew(ip, entry)
        else:
            del self._entries[ip]

    def _wanted(self, ip: int, entry: ArpEntry) -> bool:
        """Whether connections use the neighbour, or somebody has sent to it since the last look."""
        wanted, entry.wanted = entry.wanted, False
        return wanted or self.used(ip)

    def _renew(self, ip: int, entry: ArpEntry) -> None:
        """Ask again: the old address, then everybody. Who answers neither counts as down for new users; for those it has, it is
        asked for from time to time."""
        if entry.timer is not None:
            entry.timer.cancel()
            entry.timer = None
        wait_us = self._retry_us
        if entry.tries >= 2 * self._tries:
            if not self._wanted(ip, entry):
                del self._entries[ip]
                return
            self._note_down(ip)
            wait_us = self._down_us
        entry.tries += 1
        self._ask(ip, None if entry.tries > self._tries else entry.mac)
        entry.timer = self._stack.callout(wait_us, lambda: self._renew(ip, entry))

    def _request(self, ip: int, entry: ArpEntry) -> None:
        if entry.tries == self._tries:
            del self._entries[ip]
            self._note_down(ip)
            for waiter in entry.waiters:
                waiter(None)
            return
        entry.tries += 1
        self._ask(ip, None)
        entry.timer = self._stack.callout(self._retry_us, lambda: self._request(ip, entry))

    def _note_down(self, ip: int) -> None:
        now = self._stack.now_us()
        self._down = {other: until for other, until in self._down.items() if until > now}
        self._down[ip] = now + self._down_us

    def _make_room(self) -> None:
        if len(self._entries) >= self.LIMIT:
            for ip, entry in self._entries.items():
                if entry.mac is not None and not entry.static:
                    if entry.timer is not None:
                        entry.timer.cancel()
                    del self._entries[ip]
                    return

"""Everything that passes an engine's frame ports, in order: into a pcap, and under the monitor's eyes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .monitor import WireError, WireMonitor
from .pcap import PcapWriter
from .vlan import VlanPort


class Capture:
    """Feeds a pcap file and a wire monitor; either may be left out.

    Attributes
    ----------
    to_engine, from_engine : int
        Frames so far.
    port : VlanPort
        The network that the engine's interface is in (IEEE 802.1Q). The monitor sees frames without tags.
    stamp : callable or None
        Told of each frame before it is in the pcap: the cycles of its first and last word, and whether it goes to the engine.
    """

    def __init__(self, path: Path | None = None, monitor: WireMonitor | None = None) -> None:
        self.monitor = monitor
        self.pcap = PcapWriter(path) if path else None
        self.to_engine = self.from_engine = 0
        self.port = VlanPort()
        self.stamp: Callable[[int, int, bool], None] | None = None

    @property
    def path(self) -> Path | None:
        """The pcap file."""
        return self.pcap.path if self.pcap else None

    def frame(self, data: bytes, to_engine: bool, time_ns: int, first: int = 0, last: int = 0) -> None:
        """Note a frame, with the cycles of its first and last word where they are known; raises :exc:`WireError`, naming
        the capture, if the engine must not have sent it."""
        if self.pcap:
            if self.stamp is not None:
                self.stamp(first, last, to_engine)
            self.pcap.write(time_ns, data)
        if to_engine:
            self.to_engine += 1
            received = self.port.received(data)
            if self.monitor and received is not None:
                self.monitor.to_engine(received, time_ns)
            return
        self.from_engine += 1
        if self.monitor:
            try:
                self.monitor.from_engine(self.port.sent(data), time_ns)
            except WireError as error:
                if self.pcap is None:
                    raise
                self.pcap.flush()
                raise WireError(f"{error} (capture: {self.pcap.path})") from None

    def close(self) -> None:
        """End the pcap. Twice does no harm."""
        if self.pcap:
            self.pcap.close()

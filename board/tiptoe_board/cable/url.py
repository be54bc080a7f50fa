"""``etherbone://HOST[:PORT]`` and ``uart:///dev/ttyUSB1``: a cable by its URL."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

from ..address_map import UART_BAUD
from ..etherbone import UDP_PORT
from .device import Cable, CableDevice
from .etherbone_udp import EtherboneCable
from .memory import prepare_memory
from .uart import UartCable

_ETHERBONE = "etherbone://HOST[:PORT][?build=HEX]"
_UART = "uart:///dev/TTY[?baud=N&build=HEX]"


def open_cable(url: str, *, patience_s: float = 3.0) -> Cable:
    """The cable; ValueError for what is no URL of one, CableError when no board of ours answers.

    ``build=HEX``: the first digits of the build's hash, as the report of `make bitstream` has them, if no other will do.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
        choices = {name: values[-1] for name, values in parse_qs(parts.query, strict_parsing=bool(parts.query)).items()}
        build = int(choices.pop("build"), 16) if "build" in choices else None
        baud = int(choices.pop("baud", 0))
    except ValueError as error:
        raise ValueError(f"{url}: {error}: {_ETHERBONE} or {_UART} is wanted") from None
    if parts.scheme == "etherbone" and parts.hostname and not parts.path.strip("/") and not baud and not choices:
        return EtherboneCable(parts.hostname, port or UDP_PORT, patience_s=patience_s, build=build)
    if parts.scheme == "uart" and not parts.netloc and parts.path and baud >= 0 and not choices:
        return UartCable(parts.path, baud or UART_BAUD, patience_s=patience_s, build=build)
    raise ValueError(f"{url}: {_ETHERBONE} or {_UART} is wanted")


def open_device(url: str, *, patience_s: float = 3.0) -> CableDevice:
    """The driver's device behind the cable, its memory ready. Over a serial line one event is asked for at a time, since asking
    takes so long."""
    cable = open_cable(url, patience_s=patience_s)
    try:
        prepare_memory(cable)
    except BaseException:
        cable.close()
        raise
    return CableDevice(cable, events_at_once=1 if isinstance(cable, UartCable) else 4)

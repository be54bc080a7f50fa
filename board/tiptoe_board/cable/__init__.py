"""The driver's device behind a cable: an Etherbone bridge over UDP, or UARTBone over a serial line."""

from .device import CableDevice
from .fault import CableError
from .url import open_cable, open_device

__all__ = ["CableDevice", "CableError", "open_cable", "open_device"]

"""Driver model of the engine after FreeBSD's toe_usrreqs.

    stack = Stack()
    Tiptoe(stack, device, address="10.0.0.1/24", mac="02:00:00:00:00:01")
    sock = Socket(stack)
    sock.connect(("10.0.0.2", 80))

``device`` is anything that has the seam of device.py. docs/driver.md tells what happens then.
"""

from .hardware.device import Device
from .hardware.options import DeviceError, EngineOptions
from .hardware.user_buffers import UserBuffer
from .netinet.stack import Stack
from .sockets import SO_NO_OFFLOAD, TCP_NOPUSH, Socket, create_connection, select
from .toe.device import Tiptoe
from .toe.lifecycle import DeviceState
from .toe.policy import OffloadPolicy, Opening, PolicyRule
from .toe.snapshots import snapshot
from .toe.standstill import Standstill

__all__ = [
    "SO_NO_OFFLOAD",
    "TCP_NOPUSH",
    "Device",
    "DeviceError",
    "DeviceState",
    "EngineOptions",
    "OffloadPolicy",
    "Opening",
    "PolicyRule",
    "Socket",
    "Stack",
    "Standstill",
    "Tiptoe",
    "UserBuffer",
    "create_connection",
    "select",
    "snapshot",
]

"""Driver model of the engine after FreeBSD's toe_usrreqs.

    stack = Stack()
    Tiptoe(stack, device, address="10.0.0.1/24", mac="02:00:00:00:00:01")
    sock = Socket(stack)
    sock.connect(("10.0.0.2", 80))

``device`` is anything that has the seam of device.py. docs/driver.md tells what happens then.
"""

from .device import Device
from .lifecycle import DeviceState
from .options import DeviceError, EngineOptions
from .policy import OffloadPolicy, Opening, PolicyRule
from .snapshots import snapshot
from .sockets import SO_NO_OFFLOAD, Socket, create_connection, select
from .stack import Stack
from .toe import Tiptoe
from .user_buffers import UserBuffer

__all__ = [
    "SO_NO_OFFLOAD",
    "Device",
    "DeviceError",
    "DeviceState",
    "EngineOptions",
    "OffloadPolicy",
    "Opening",
    "PolicyRule",
    "Socket",
    "Stack",
    "Tiptoe",
    "UserBuffer",
    "create_connection",
    "select",
    "snapshot",
]

"""TAP interfaces: a network interface of this machine's kernel whose other side is a descriptor."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
import time
from pathlib import Path

_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_SIOCADDRT = 0x890B
_SIOCSIFADDR, _SIOCSIFNETMASK, _SIOCSIFMTU, _SIOCSIFHWADDR = 0x8916, 0x891C, 0x8922, 0x8924
_SIOCSIFTXQLEN = 0x8943
_IFF_UP, _IFF_RUNNING, _IFF_MULTICAST = 0x1, 0x40, 0x1000
_ARPHRD_ETHER = 1
_RTF_UP, _RTF_GATEWAY = 0x1, 0x2
_IFA_F_TENTATIVE = 0x40
_TENTATIVE_S = 10.0
TUN = Path("/dev/net/tun")
QUEUE_FRAMES = 8192
"""Frames that wait for the engine: a burst of hundreds of clients, at the speed of a simulation."""


class TapError(OSError):
    """No TAP interface is to be had; the message is fit to be shown to the user."""


def open_tap(
    name: str, *, address: str, prefix: int = 24, mtu: int = 1500, mac: str = "", gateway: str = "", address6: str = ""
) -> int:
    """Create the TAP interface ``name``, configure the kernel's side, and return the other side's descriptor.

    With ``gateway`` this becomes the kernel's default route.

    The descriptor does not block. Frames carry complete checksums and are never longer than the MTU, since no offloads
    are asked for. IPv6 and multicast are switched off, so that only traffic somebody wants appears; with ``address6``, an IPv6
    address with its prefix length, they are not, but no router is asked for, nor whether the address is free. The interface goes
    away when the descriptor is closed.
    """
    if not 0 < len(name) < 16:
        raise TapError(f"{name!r} is not an interface name: it has 1 to 15 characters")
    try:
        tap = os.open(TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _explained("open /dev/net/tun", error) from None
    try:
        request = struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI)
        try:
            fcntl.ioctl(tap, _TUNSETIFF, request)
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise TapError(f"interface {name} exists and is in use: choose another name") from None
            raise _explained(f"create the TAP interface {name}", error) from None
        try:
            _configure(name, address, prefix, mtu, mac, address6)
            if gateway:
                _route(gateway)
        except OSError as error:
            raise _explained(f"configure the TAP interface {name}", error) from None
    except BaseException:
        os.close(tap)
        raise
    return tap


def _explained(what: str, error: OSError) -> TapError:
    hint = ""
    if error.errno in (errno.EPERM, errno.EACCES):
        hint = ": run as root, or inside `unshare -rn`"
    elif error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        hint = ": this kernel has no TUN/TAP driver"
    return TapError(f"cannot {what} ({error.strerror or error}){hint}")


def bring_up(name: str, multicast: bool = False) -> None:
    """Switch an interface on, without multicast unless that is wanted."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        answer = fcntl.ioctl(control, _SIOCGIFFLAGS, struct.pack("16sH22x", name.encode(), 0))
        flags = struct.unpack_from("H", answer, 16)[0]
        flags |= _IFF_UP | _IFF_RUNNING | _IFF_MULTICAST
        flags &= ~0 if multicast else ~_IFF_MULTICAST
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH22x", name.encode(), flags))


def _set_ipv6(name: str, **values: int) -> None:
    for file, value in values.items():
        with contextlib.suppress(OSError):  # there is no such file on a kernel without IPv6
            Path(f"/proc/sys/net/ipv6/conf/{name}/{file}").write_text(str(value))


def _configure(name: str, address: str, prefix: int, mtu: int, mac: str, address6: str) -> None:
    mask = socket.inet_ntoa(((0xFFFFFFFF << (32 - prefix)) & 0xFFFFFFFF).to_bytes(4, "big"))
    if address6:
        _set_ipv6(name, disable_ipv6=0, accept_dad=0, router_solicitations=0, addr_gen_mode=1)
    else:
        _set_ipv6(name, disable_ipv6=1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        if mac:
            hardware = bytes(int(part, 16) for part in mac.split(":"))
            fcntl.ioctl(control, _SIOCSIFHWADDR, struct.pack("16sH6s16x", name.encode(), _ARPHRD_ETHER, hardware))
        fcntl.ioctl(control, _SIOCSIFMTU, struct.pack("16si20x", name.encode(), mtu))
        fcntl.ioctl(control, _SIOCSIFTXQLEN, struct.pack("16si20x", name.encode(), QUEUE_FRAMES))
        for request, value in ((_SIOCSIFADDR, address), (_SIOCSIFNETMASK, mask)):
            packed = struct.pack("16sHH4s16x", name.encode(), socket.AF_INET, 0, socket.inet_aton(value))
            fcntl.ioctl(control, request, packed)
    bring_up(name, multicast=bool(address6))
    if address6:
        host, _, length = address6.partition("/")
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as control:  # struct in6_ifreq
            packed = socket.inet_pton(socket.AF_INET6, host) + struct.pack(
                "Ii", int(length), socket.if_nametoindex(name)
            )
            fcntl.ioctl(control, _SIOCSIFADDR, packed)
        _until_usable(name)


def _until_usable(name: str) -> None:
    """Wait until the kernel uses the interface's IPv6 addresses. It makes them tentative at first, asked for duplicates or not,
    and whoever connects meanwhile has ::1 as source, which nobody answers."""
    begin = time.monotonic()
    while True:
        lines = [line.split() for line in Path("/proc/thread-self/net/if_inet6").read_text().splitlines()]
        flags = [int(fields[4], 16) for fields in lines if fields[5] == name]
        if flags and not any(flag & _IFA_F_TENTATIVE for flag in flags):
            return
        if time.monotonic() - begin > _TENTATIVE_S:
            raise OSError(errno.EADDRNOTAVAIL, "the kernel does not make its IPv6 address usable")
        time.sleep(0.001)


def _route(gateway: str) -> None:
    """A default route (struct rtentry)."""

    def address(text: str) -> bytes:
        return struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(text))

    entry = struct.pack(
        "@L16s16s16sHhLPhPLLH", 0, address("0.0.0.0"), address(gateway), address("0.0.0.0"), _RTF_UP | _RTF_GATEWAY,
        0, 0, 0, 0, 0, 0, 0, 0,
    )  # fmt: skip
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCADDRT, entry + bytes(8))

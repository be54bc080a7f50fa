"""Whether a process still has the other end of a socket pair.

EPOLLHUP does not tell: it comes when an end is closed, and just so when both directions are shut and a program goes on with
the socket. The kernel knows, and tells who asks for the socket by its inode (sock_diag(7); linux/unix_diag.h).
"""

from __future__ import annotations

import os
import socket
import struct

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_HEAD = struct.Struct("=IHHII")
"""struct nlmsghdr: length, type, flags, sequence, port."""
_REQUEST = struct.Struct("=BBHIIIQ")
"""struct unix_diag_req: family, protocol, padding, states, inode, what to show, cookie."""
_ANY_STATE, _NO_COOKIE = 0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF


class Held:
    """Called, it tells whether ``end`` is open still, in whatever process. It does not keep it open. What is gone does not come
    back: the kernel is not asked again, though another socket may have the inode by then.

    A system without unix_diag says no: what looks closed counts as closed there.
    """

    def __init__(self, end: socket.socket) -> None:
        self._inode = os.fstat(end.fileno()).st_ino
        self._gone = False

    def __call__(self) -> bool:
        """Ask the kernel, which answers at once."""
        self._gone = self._gone or not self._known()
        return not self._gone

    def _known(self) -> bool:
        request = _REQUEST.pack(socket.AF_UNIX, 0, 0, _ANY_STATE, self._inode, 0, _NO_COOKIE)
        head = _HEAD.pack(_HEAD.size + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 0, 0)
        try:
            with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_SOCK_DIAG) as kernel:
                kernel.send(head + request)
                _, kind, *_ = _HEAD.unpack_from(kernel.recv(4096, socket.MSG_DONTWAIT))
        except OSError:
            return False
        return bool(kind == _SOCK_DIAG_BY_FAMILY)

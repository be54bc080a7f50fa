"""Urgent data with the Linux kernel as the peer, both ways (RFC 9293 section 3.8.5, RFC 6093).

With net.ipv4.tcp_stdurg=0, its default, Linux sends a pointer to the octet behind the urgent one, as MUST-62 has it, and takes
the octet before the pointer for urgent.
"""

import errno
import fcntl
import select
import socket
import struct

import pytest

from tests.live.conftest import ENGINE, KERNEL, readable, receive_some, send_some
from tiptoe_verif.wire.segment import URG, ip_number

pytestmark = pytest.mark.tap
OOB = socket.MSG_OOB
SIOCATMARK = 0x8905
INLINE = (socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)


def urgent(sock):
    """POLLPRI: the urgent byte is there."""
    return bool(select.select([], [], [sock], 0)[2])


def at_mark(sock):
    return bool(struct.unpack("i", fcntl.ioctl(sock, SIOCATMARK, bytes(4)))[0])


def connected(bench, active):
    """Our end and the kernel's."""
    if active:
        listener = bench.listen(8000)
        ours = bench.offloaded_connect(8000)
        return ours, bench.accept(listener)
    listener = bench.offloaded_listener(80)
    kernel = bench.connect(80)
    return bench.offloaded_accept(listener), kernel


def stream(bench, sock, count):
    got = bytearray()

    def done():
        got.extend(receive_some(sock, count - len(got)))
        return len(got) >= count

    bench.until(done, f"{count} bytes")
    return bytes(got)


def pointers(bench, source):
    return [(s.payload, s.urgent) for s in bench.segments() if s.flags & URG and s.src == ip_number(source)]


@pytest.mark.parametrize("active", [True, False])
def test_ours_to_the_kernel_out_of_line(bench, active):
    ours, kernel = connected(bench, active)
    ours.send(b"abcX", OOB)
    bench.until(lambda: urgent(kernel), "POLLPRI")
    assert stream(bench, kernel, 3) == b"abc" and at_mark(kernel)
    assert kernel.recv(1, OOB) == b"X"
    ours.send(b"def")
    assert stream(bench, kernel, 3) == b"def"
    assert (b"abcX", 4) in pointers(bench, ENGINE)


@pytest.mark.parametrize("active", [True, False])
def test_ours_to_the_kernel_in_line(bench, active):
    ours, kernel = connected(bench, active)
    kernel.setsockopt(*INLINE)
    ours.send(b"abcX", OOB)
    ours.send(b"def")
    assert stream(bench, kernel, 3) == b"abc" and at_mark(kernel)
    assert stream(bench, kernel, 4) == b"Xdef"


@pytest.mark.parametrize("active", [True, False])
def test_the_kernel_s_to_us_out_of_line(bench, active):
    ours, kernel = connected(bench, active)
    told = []
    ours.set_urgent_upcall(lambda sock: told.append(sock.urgent()))
    kernel.send(b"abcX", OOB)
    bench.until(ours.exceptional, "the urgent byte")
    assert told and ours.recv(1, OOB) == b"X"
    kernel.send(b"def")
    assert stream(bench, ours, 3) == b"abc" and ours.sockatmark()
    assert stream(bench, ours, 3) == b"def"
    assert (b"abcX", 4) in pointers(bench, KERNEL)


@pytest.mark.parametrize("active", [True, False])
def test_the_kernel_s_to_us_in_line(bench, active):
    ours, kernel = connected(bench, active)
    ours.setsockopt(*INLINE)
    kernel.send(b"abcX", OOB)
    kernel.send(b"def")
    assert stream(bench, ours, 3) == b"abc" and ours.sockatmark()
    assert stream(bench, ours, 4) == b"Xdef"


def test_the_kernel_s_pointer_passes_our_closed_window(bench, payload):
    ours, kernel = connected(bench, False)
    told = []
    ours.set_urgent_upcall(lambda sock: told.append(sock.urgent()))
    size = ours.so.so_rcv.sb_hiwat + 20_000
    sent = 0

    def closed():
        nonlocal sent
        sent += send_some(kernel, payload(size)[: size - sent])
        return sent == size and ours.so.so_rcv.sb_cc == ours.so.so_rcv.sb_hiwat

    bench.until(closed, "our window's end")
    bench.for_s(0.3)
    assert not told
    assert kernel.send(b"X", OOB) == 1
    bench.until(lambda: told, "the notice")
    assert len(stream(bench, ours, sent)) == sent and ours.sockatmark()
    bench.until(ours.exceptional, "the urgent byte")
    assert ours.recv(1, OOB) == b"X"


def test_our_pointer_passes_the_kernel_s_closed_window(bench, payload):
    """More than 64 KiB may lie before the urgent byte: the pointer is cut off, and then moves on."""
    listener = bench.listen(8000)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    ours = bench.offloaded_connect(8000)
    kernel = bench.accept(listener)
    sent, quiet = 0, 0
    while quiet < 5:  # until the window is closed, with a little room left here
        try:
            sent += ours.send(payload(1000)[: max(0, 60_000 - sent)])
        except BlockingIOError:
            pass
        quiet = quiet + 1 if sent == 60_000 else 0
        bench.for_s(0.05)
    assert ours.send(b"X", OOB) == 1
    bench.for_s(0.2)
    assert pointers(bench, ENGINE), "it goes at once"
    assert not urgent(kernel)
    assert len(stream(bench, kernel, sent)) == sent
    bench.until(lambda: urgent(kernel), "POLLPRI")
    assert at_mark(kernel) and kernel.recv(1, OOB) == b"X"
    with pytest.raises(OSError) as caught:
        kernel.recv(1, OOB)
    assert caught.value.errno == errno.EINVAL and not readable(kernel)

"""TAP interfaces and namespaces themselves."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tiptoe_verif.live.namespace import NetNamespace
from tiptoe_verif.live.tap import TapError, open_tap

TIPTOE = str(Path(sys.executable).with_name("tiptoe"))


@pytest.mark.tap
def test_interface_is_configured_and_quiet():
    with NetNamespace() as namespace:
        tap = namespace.open_tap("probe0", address="10.77.9.1", prefix=29, mtu=1000, mac="02:00:00:00:09:01")
        show = (
            "import fcntl, socket, struct; s = socket.socket()\n"
            "ask = lambda call: fcntl.ioctl(s, call, struct.pack('40s', b'probe0'))\n"
            "print(socket.inet_ntoa(ask(0x8915)[20:24]), socket.inet_ntoa(ask(0x891b)[20:24]), "
            "struct.unpack('i', ask(0x8921)[16:20])[0], ask(0x8927)[18:24].hex())"
        )
        with namespace.popen([sys.executable, "-c", show], stdout=subprocess.PIPE, text=True) as process:
            assert process.communicate()[0].split() == ["10.77.9.1", "255.255.255.248", "1000", "020000000901"]
        # Nothing comes by itself: no IPv6, no multicast. What somebody sends does.
        with pytest.raises(BlockingIOError):
            os.read(tap, 2000)
        with namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.sendto(b"x", ("10.77.9.2", 9))
        frame = os.read(tap, 2000)
        assert frame[:6] == b"\xff" * 6 and frame[6:12] == bytes.fromhex("020000000901") and frame[12:14] == b"\x08\x06"
        os.close(tap)


@pytest.mark.tap
def test_its_ipv6_address_is_usable_at_once():
    """No look at it finds it tentative: who connects has it as source, and not ::1."""
    show = "print([line.split()[4] for line in open('/proc/net/if_inet6') if line.split()[5] == 'probe0'])"
    with NetNamespace() as namespace:
        for _ in range(10):
            tap = namespace.open_tap("probe0", address="10.77.9.1", address6="fd77::1/64")
            with namespace.socket(socket.AF_INET6, socket.SOCK_DGRAM) as udp:
                udp.connect(("fd77::2", 9))
                assert udp.getsockname()[0] == "fd77::1"
            with namespace.popen([sys.executable, "-c", show], stdout=subprocess.PIPE, text=True) as process:
                assert process.communicate()[0] == "['80']\n"  # IFA_F_PERMANENT alone
            os.close(tap)


@pytest.mark.tap
def test_name_in_use_is_said():
    with NetNamespace() as namespace:
        tap = namespace.open_tap("probe0", address="10.77.9.1")
        with pytest.raises(TapError, match="interface probe0 exists and is in use"):
            namespace.open_tap("probe0", address="10.77.9.1")
        with pytest.raises(TapError, match="1 to 15 characters"):
            namespace.open_tap("a-name-much-too-long", address="10.77.9.1")
        with pytest.raises(TapError, match="configure"):
            namespace.open_tap("probe1", address="10.77.9.x")
        os.close(tap)


@pytest.mark.tap
def test_unknown_program_inside_is_said():
    with NetNamespace() as namespace:
        with namespace.popen(["no-such-program"], stderr=subprocess.PIPE, text=True) as process:
            assert "no-such-program: No such file" in process.communicate()[1]
        assert process.returncode == 1


@pytest.mark.tap
def test_namespace_ends_with_its_owner():
    namespace = NetNamespace()
    pid = namespace.pid
    namespace.close()
    namespace.close()
    assert not Path(f"/proc/{pid}").exists()


def test_no_tap_driver_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr("tiptoe_verif.live.tap.TUN", tmp_path / "tun")
    with pytest.raises(TapError, match="this kernel has no TUN/TAP driver"):
        open_tap("probe0", address="10.77.9.1")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give up root's rights")
@pytest.mark.skipif(not Path("/dev/net/tun").exists(), reason="no /dev/net/tun")
def test_no_permission_is_one_line():
    """Without any capability, a TAP interface cannot be made: one line, status 1."""
    drop = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
    result = subprocess.run(
        [*drop, TIPTOE, "live", "--listen", "80=echo", "--seconds", "1"], capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 1
    assert result.stderr.startswith("error: cannot ") and "run as root" in result.stderr
    assert result.stderr.count("\n") == 1

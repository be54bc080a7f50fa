"""A script with a wrong expectation fails, at its line, with what was seen; one that wants what is not there is skipped."""

import pytest

from tiptoe_verif.script.command import play

SCRIPT = """0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
+0 bind(3, ..., ...) = 0
+0 listen(3, 1) = 0
+0 < S 0:0(0) win 1000 <mss 1000,sackOK,nop,nop>
+0 > S. 0:0(0) ack 1 win 65535 <mss 1460,sackOK>
+.1 < . 1:1(0) ack 1 win 1000
+0 accept(3, ..., ...) = 4
+0 write(4, ..., 500) = 500
+0 > [noecn] P. 1:501(500) ack 1
+.1 < P. 1:11(10) ack 501 win 1000
+0~+.1 > . 501:501(0) ack 11
+0 read(4, ..., 100) = 10
+0 %{ assert tcpi_snd_mss == 1000, tcpi_snd_mss }%
"""


def played(tmp_path, library, text, **options):
    path = tmp_path / "one.pkt"
    path.write_text(text)
    return play(path, library=library, **options)


READ = "+0 read(4, ..., 100) = 10"


@pytest.mark.parametrize(
    "line, right, wrong, why, seen",
    [
        (5, "S. 0:0(0) ack 1", "S. 0:0(0) ack 2", "ack differ", "ack 1"),
        (5, "win 65535", "win 65534", "win differ", "win 65535"),
        (5, "mss 1460", "mss 1461", "options differ", "<mss 1460,sackOK>"),
        (5, ",sackOK>", ">", "options differ", "<mss 1460,sackOK>"),
        (5, "+0 > S.", "+.05 > S.", "50.0 ms too early", "0.0"),
        (7, ") = 4", ") = -1 EINVAL", "the call has returned something else", "4"),
        (8, ") = 500", ") = 499", "the call has returned something else", "500"),
        (9, "P. 1:501(500)", "P. 1:500(499)", "sequence numbers differ", "1:501(500)"),
        (9, "P. 1:501", ". 1:501", "flags differ", "P. 1:501"),
        (9, "noecn", "ect0", "ECN differ", "[noecn]"),
        (9, "+0 > [noecn] P. 1", "+0 > [noecn] P. 501:1001(500) ack 1\n+0 > [noecn] P. 1", "sequence numbers", "1:501"),
        (11, "+0~+.1 >", "+0~+.01 >", "no segment in time", "nothing until 0."),
        (12, READ, "+0 read(4, ..., 100) = 11", "the call has returned something else", "10"),
        (12, READ, "+0...0.2 read(4, ..., 100) = 10", "the call has returned at another time", "at 0."),
        (13, READ, READ + "\n+0 read(4, ..., 1) = 1", "the call of line 13 waits", "it has not returned"),
        (13, READ, READ + "\n+0...0.1 read(4, ..., 1) = 1", "the call of line 13 waits", "it has not returned"),
        (13, READ, READ + "\n+0 getsockopt(4, IPPROTO_TCP, TCP_MAXSEG, [999], [4]) = 0", "something else", "[1000]"),
        (13, READ, READ + "\n+0 poll([{fd=4, events=POLLIN, revents=POLLIN}], 1, 0) = 0", "something else", "revents=0"),
        (13, "tcpi_snd_mss == 1000", "tcpi_snd_mss == 1001", "the assertion fails", "tcpi_snd_mss is 1000"),
        (13, "assert tcpi_snd_mss", "assert tcpi_snd_mss.x", "the assertion fails", "AttributeError"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_found_at_its_line(tmp_path, library, line, right, wrong, why, seen):
    assert right in SCRIPT
    result = played(tmp_path, library, SCRIPT.replace(right, wrong, 1))
    assert (result.status, result.line) == ("FAILED", line), result
    assert why in result.why and seen in result.seen


def test_as_it_is_it_passes(tmp_path, library):
    assert played(tmp_path, library, SCRIPT).status == "ok"


def test_history_has_the_last_packets(tmp_path, library):
    result = played(tmp_path, library, SCRIPT.replace("P. 1:501(500)", "P. 1:500(499)"))
    assert [line.split(maxsplit=1)[1] for line in result.history] == [
        "< S 0:0(0) win 1000 <mss 1000,sackOK,nop,nop>",
        "> S. 0:0(0) ack 1 win 65535 <mss 1460,sackOK>",
        "< . 1:1(0) ack 1 win 1000",
        "> P. 1:501(500) ack 1 win 65535",
    ]


def test_tolerance_is_the_caller_s_if_he_has_one(tmp_path, library):
    late = SCRIPT.replace("+0 > S.", "+.05 > S.")
    assert played(tmp_path, library, late, tolerance_us=60_000).status == "ok"
    assert played(tmp_path, library, "--tolerance_usecs=60000\n" + late).status == "ok"


def test_lenient_to_push_and_window_updates(tmp_path, library):
    """The window scale makes the window larger after the handshake: an acknowledgement says so."""
    text = SCRIPT.replace("sackOK,nop,nop>", "sackOK,nop,wscale 7>").replace(
        "<mss 1460,sackOK>", "<mss 1460,sackOK,wscale 3>"
    )
    text = text.replace("P. 1:501(500)", ". 1:501(500)")
    assert played(tmp_path, library, text).line == 9
    assert played(tmp_path, library, text, lenient=True).status == "ok"


@pytest.mark.parametrize(
    "right, wrong, words",
    [
        ("listen(3, 1)", "epoll_create(1)", "the call epoll_create()"),
        ("SOCK_STREAM, IPPROTO_TCP", "SOCK_DGRAM, IPPROTO_UDP", "sockets other than TCP's"),
        ("bind(3, ..., ...) = 0", "setsockopt(3, SOL_SOCKET, SO_NO_SUCH, [1], 4) = 0", "the constant SO_NO_SUCH"),
        ("tcpi_snd_mss == 1000", "tcpi_reordering == 3", "does not know tcpi_reordering"),
        ("+0 bind", "+0 < icmp redirect\n+0 bind", "icmp redirect"),
        ("+0 bind", "+0 `ip route add 10.0.0.0/8 dev tun0`\n+0 bind", "ip route"),
        ("0 socket", "`sysctl -q net.ipv4.tcp_fastopen=1`\n0 socket", "tcp_fastopen=1"),
        ("+0 accept", "+0 `sysctl -q net.ipv4.tcp_sack=0`\n+0 accept", "in the middle"),
        ("0 socket", "--ip_version=ipv6\n0 socket", "IPv4"),
        ("0 socket", "--local_ip=10.1.2\n0 socket", "10.1.2"),
        ("0 socket", "--mtu=9000\n0 socket", "9000"),
        ("listen(3, 1)", "listen(3, ...)", "where a number is wanted"),
    ],
)
def test_what_is_not_there_skips(tmp_path, library, right, wrong, words):
    result = played(tmp_path, library, SCRIPT.replace(right, wrong, 1))
    assert result.status == "skipped" and words in result.why, result


def test_sysctls_become_options_of_the_driver(tmp_path, library):
    (tmp_path / "defaults.sh").write_text("sysctl -q net.ipv4.tcp_sack=0\n")
    text = "`./defaults.sh`\n" + SCRIPT.replace("<mss 1460,sackOK>", "<mss 1460>")
    assert played(tmp_path, library, text).status == "ok"


@pytest.mark.parametrize(
    "line, right, wrong",
    [(9, "(500) ack 1", "(501) ack 1"), (13, "assert tcpi_snd_mss ==", "assert =="), (1, SCRIPT, "// nothing")],
)
def test_what_cannot_be_read(tmp_path, library, line, right, wrong):
    result = played(tmp_path, library, SCRIPT.replace(right, wrong))
    assert (result.status, result.line) == ("unreadable", line), result


@pytest.mark.parametrize(
    "options", ["--local_ip=10.1.2.254 --remote_ip=10.1.2.3", "--bind_port=80 --remote_ip=203.0.113.9", "--mss=1460"]
)
def test_addresses_are_the_script_s(tmp_path, library, options):
    assert played(tmp_path, library, options + "\n" + SCRIPT).status == "ok"

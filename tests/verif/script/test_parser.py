"""Packet scripts read: each form of the language, and the line of what is none."""

import pytest

from tiptoe_verif.script.parser import parse
from tiptoe_verif.script.tree import (
    ANY,
    Call,
    Code,
    Either,
    Icmp,
    Name,
    Option,
    Packet,
    ScriptError,
    Shell,
    Struct,
    SystemCall,
    Unsupported,
    When,
)


def one(text):
    (event,) = parse(text).events
    return event


@pytest.mark.parametrize(
    "text, when",
    [
        ("0", When(0)),
        ("1.5", When(1_500_000)),
        ("+.1", When(100_000, None, True)),
        ("+0", When(0, None, True)),
        ("0.3~0.4", When(300_000, 400_000)),
        ("+0~+.05", When(0, 50_000, True)),
        ("*", When(None)),
    ],
)
def test_times(text, when):
    assert one(f"{text} > . 1:1(0) ack 1").when == when


@pytest.mark.parametrize(
    "text, packet",
    [
        ("< S 0:0(0)", Packet(False, "S", 0, 0)),
        ("> S. 0:0(0) ack 1 win 5", Packet(True, "S.", 0, 0, 1, 5)),
        ("> . 1:1001(1000) ack 7", Packet(True, ".", 1, 1000, 7)),
        ("< FPU. 1:2(1) ack 1 win 3 urg 1", Packet(False, "FPU.", 1, 1, 1, 3, 1)),
        ("> SEW 0:0(0) <...>", Packet(True, "SEW", 0, 0, options=None)),
        ("< [ect0] R 5:5(0)", Packet(False, "R", 5, 0, ecn="ect0")),
        ("< (tos 0x3) - 5:5(0)", Packet(False, "", 5, 0, tos=3)),
        ("< 8080 > 33001 . 1:1(0) ack 1", Packet(False, ".", 1, 0, 1, ports=(8080, 33001))),
        ("< . 4294967295:1(2) ack 1", Packet(False, ".", 4294967295, 2, 1)),
        (
            "> S 0:0(0) <mss 1460,sackOK,TS val 100 ecr 0,nop,wscale 7>",
            Packet(
                True, "S", 0, 0,
                options=(Option("mss", (1460,)), Option("sackOK"), Option("TS", (100, 0)), Option("nop"), Option("wscale", (7,))),
            ),
        ),
        (
            "< . 1:1(0) ack 1 <nop,nop,sack 1:2 5:6>",
            Packet(False, ".", 1, 0, 1, options=(Option("nop"), Option("nop"), Option("sack", (1, 2, 5, 6)))),
        ),
        ("< icmp unreachable frag_needed mtu 1200 [1:1461(1460)]", Icmp(False, "unreachable", "frag_needed", 1200, 1, 1460)),
        ("< icmp time_exceeded", Icmp(False, "time_exceeded")),
    ],
)  # fmt: skip
def test_packets(text, packet):
    action = one(f"+0 {text}").action
    assert action == packet
    assert one(f"+0 {action}").action == packet  # as it is shown, it can be read


@pytest.mark.parametrize(
    "text, call",
    [
        (
            "socket(..., SOCK_STREAM|SOCK_NONBLOCK, IPPROTO_TCP) = 3",
            SystemCall("socket", (ANY, Either((Name("SOCK_STREAM"), Name("SOCK_NONBLOCK"))), Name("IPPROTO_TCP")), 3),
        ),
        ("connect(3, ..., ...) = -1 EINPROGRESS (Operation now in progress)",
         SystemCall("connect", (3, ANY, ANY), -1, "EINPROGRESS")),
        ("fcntl(3, F_GETFL) = 0x2 (flags O_RDWR)", SystemCall("fcntl", (3, Name("F_GETFL")), 2)),
        ("setsockopt(3, SOL_SOCKET, SO_LINGER, {onoff=1, linger=0}, 8) = 0",
         SystemCall("setsockopt", (3, Name("SOL_SOCKET"), Name("SO_LINGER"), Struct({"onoff": 1, "linger": 0}), 8), 0)),
        ('setsockopt(3, IPPROTO_TCP, TCP_CONGESTION, "reno", 4) = 0',
         SystemCall("setsockopt", (3, Name("IPPROTO_TCP"), Name("TCP_CONGESTION"), "reno", 4), 0)),
        ('bind(3, {sa_family = AF_INET, sin_port = htons(80), sin_addr = inet_addr("10.0.0.1")}, ...) = 0',
         SystemCall("bind", (3, Struct({"sa_family": Name("AF_INET"), "sin_port": Call("htons", (80,)),
                                        "sin_addr": Call("inet_addr", ("10.0.0.1",))}), ANY), 0)),
        ("poll([{fd=3, events=POLLIN}], 1, -1) = 0",
         SystemCall("poll", ([Struct({"fd": 3, "events": Name("POLLIN")})], 1, -1), 0)),
        ("writev(4, [{..., 10}, {..., 20}], 2) = 30",
         SystemCall("writev", (4, [Struct({0: ANY, 1: 10}), Struct({0: ANY, 1: 20})], 2), 30)),
    ],
)  # fmt: skip
def test_calls(text, call):
    assert one(f"+0 {text}").action == call


def test_a_call_that_blocks_has_an_end():
    event = one("+.1...0.3 read(4, ..., 10) = 10")
    assert event.when == When(100_000, None, True)
    assert event.action.ends_us == 300_000


def test_a_whole_script():
    script = parse("""# one
--tolerance_usecs=5000 --define=CC=reno
--local_ip=192.168.0.9 // its address
`./defaults.sh
sysctl -q x=1`
/* more
   words */ 0 socket(..., SOCK_STREAM, 0) = 3
+0 %{ assert tcpi_rto == 1 }%
+0 `true`
`cleans up`
""")
    assert script.options == {"tolerance_usecs": "5000", "define": "CC=reno", "local_ip": "192.168.0.9"}
    assert script.commands == [Shell("./defaults.sh\nsysctl -q x=1")]
    assert [event.line for event in script.events] == [7, 8, 9]
    assert [event.action for event in script.events][1:] == [Code("assert tcpi_rto == 1"), Shell("true")]
    assert script.events[0].text == "0 socket(..., SOCK_STREAM, 0) = 3"


@pytest.mark.parametrize(
    "text, line, words",
    [
        ("0 < S 0:0(0)\n\n+0 > S. 0:5(0) ack 1", 3, "0:5 are not 0 bytes"),
        ("0 > X 0:0(0)", 1, "no flags: X"),
        ("0 > . 1:1(0)", 1, "ack and the flag . come together"),
        ("0 > S 0:0(0) ack 1", 1, "ack and the flag . come together"),
        ("0 < S 0:0(0) <...>", 1, "<...> is for packets that are expected"),
        ("* < S 0:0(0)", 1, "only packets that are expected have a range of times"),
        ("+0~+1 listen(3, 1) = 0", 1, "only packets that are expected have a range of times"),
        ("0.3~0.2 > S 0:0(0)", 1, "backwards"),
        ("+0~1 > S 0:0(0)", 1, "both ends of a range of times are relative"),
        ("0 > S 0:0(0) <mss>", 1, "a number is wanted"),
        ("0 > S 0:0(0) <mtu 5>", 1, "no TCP option: mtu"),
        ("0 listen(3, 1)", 1, "= is wanted before the end"),
        ("0 listen(3 1) = 0", 1, ", is wanted, not '1'"),
        ("0", 1, "a packet, a call, a command or code is wanted"),
        ("\n/* no end", 2, "has no end"),
        ("\n\n0 `no end", 3, "has no end"),
        ("frog", 1, "a time is wanted, not 'frog'"),
    ],
)
def test_what_cannot_be_read(text, line, words):
    with pytest.raises(ScriptError) as caught:
        parse(text)
    assert not isinstance(caught.value, Unsupported)
    assert caught.value.line == line and words in str(caught.value)


@pytest.mark.parametrize(
    "text, words",
    [
        ("0 < udp (10)", "UDP"),
        ("0 < [flowlabel 0x1] S 0:0(0)", "flowlabel"),
        ("0 < S 0:0(0) <FO abcd>", "TCP option FO"),
        ("0 > SA. 0:0(0) ack 1", "accurate ECN"),
        ("0 < gre: S 0:0(0)", "packets in gre"),
        ("0 < icmp echo_request id 1", "ICMP echo"),
    ],
)
def test_what_is_not_there(text, words):
    with pytest.raises(Unsupported, match=words):
        parse(text)

"""Packet scripts read: options, commands, and timed events. Lines end where the grammar says so, as in packetdrill."""

from __future__ import annotations

from .calls_parser import CallParser
from .tree import Code, Event, Icmp, Option, Packet, Script, ScriptError, Shell, SystemCall, Unsupported, When

_ECN = ("noecn", "ect0", "ect1", "ce", "ect01")
_FLAGS = set("FSRPEWU.")
_OPTIONS = {"nop": 0, "eol": 0, "sackOK": 0, "mss": 1, "wscale": 1}


class Parser(CallParser):
    """One script."""

    def script(self) -> Script:
        """The whole file; ScriptError with the line of what cannot be read, Unsupported for what is not there."""
        made = Script()
        while self.token.kind == "option":
            name, _, value = self.take().text[2:].partition("=")
            made.options[name] = value.strip('"')
        while self.token.kind == "shell":
            made.commands.append(Shell(self.take().text[1:-1]))
        while self.token.kind != "end":
            if self.token.kind == "shell" and self.tokens[self.at + 1].kind == "end":
                self.take()  # cleans up behind the test
                break
            made.events.append(self._event())
        if not made.events:
            raise self.wrong("a time and what happens then are wanted")
        return made

    def _event(self) -> Event:
        first = self.token
        when = self._when()
        action = self._action()
        if isinstance(action, (Packet, Icmp)) and action.outbound:
            pass
        elif when.us is None or when.until_us is not None:
            raise ScriptError(first.line, "only packets that are expected have a range of times")
        text = " ".join(self.text[first.at : self.tokens[self.at - 1].end].split())
        return Event(first.line, when, action, text)

    def _when(self) -> When:
        if self.accept("*"):
            return When(None)
        relative = self.accept("+")
        us = self._time()
        if not self.accept("~"):
            return When(us, None, relative)
        if self.accept("+") != relative:
            raise self.wrong("both ends of a range of times are relative, or none")
        until = self._time()
        if until < us:
            raise self.wrong("a range of times that is backwards")
        return When(us, until, relative)

    def _time(self) -> int:
        if self.token.kind not in ("float", "number"):
            raise self.wrong("a time is wanted")
        return round(float(self.take().text) * 1_000_000)

    def _action(self) -> Packet | Icmp | SystemCall | Shell | Code:
        kind = self.token.kind
        if kind == "shell":
            return Shell(self.take().text[1:-1])
        if kind == "code":
            return Code(self.take().text[2:-2].strip())
        if kind == "dots":
            self.take()
            return self.call(self._time())
        if kind == "word":
            return self.call(None)
        if self.token.text in ("<", ">"):
            return self._packet(self.take().text == ">")
        raise self.wrong("a packet, a call, a command or code is wanted")

    # --- packets ---

    def _packet(self, outbound: bool) -> Packet | Icmp:
        line = self.token.line
        if self.token.text in ("ipv4", "ipv6", "gre", "GREv0", "mpls"):
            raise Unsupported(line, f"packets in {self.token.text}")
        ecn, tos, ttl = self._ip_info()
        if self.token.text == "icmp":
            return self._icmp(outbound)
        if self.token.text == "udp":
            raise Unsupported(line, "UDP")
        ports = None
        if self.token.kind == "number" and self.tokens[self.at + 1].text == ">":
            source = self.number()
            self.take()
            ports = source, self.number()
        if self.token.text == "udp":
            raise Unsupported(line, "UDP")
        flags = self._flags()
        seq, length = self._sequence()
        ack, win, urg = (self.number() if self.accept(name) else None for name in ("ack", "win", "urg"))
        options = self._options(outbound)
        if self.token.text == "{":
            raise Unsupported(line, "packets damaged at random")
        if "." in flags and ack is None or ack is not None and "." not in flags:
            raise ScriptError(line, "ack and the flag . come together")
        return Packet(outbound, flags, seq, length, ack, win, urg, options, ecn, tos, ttl, ports)

    def _ip_info(self) -> tuple[str | None, int | None, int | None]:
        closing = {"[": "]", "(": ")"}.get(self.token.text)
        if closing is None:
            return None, None, None
        self.take()
        ecn = tos = ttl = None
        line, word = self.token.line, self.take().text
        if word in _ECN:
            ecn = word
        elif word == "tos":
            tos = self.number()
        elif word == "ttl":
            ttl = self.number()
        else:
            raise Unsupported(line, f"{word} of IP's header")
        if self.token.text == ",":
            raise Unsupported(line, "flow labels")
        self.expect(closing)
        return ecn, tos, ttl

    def _flags(self) -> str:
        line = self.token.line
        if self.accept("-"):
            return ""
        flags = self.take().text if self.token.kind in ("word", "float") else ""
        if self.accept("."):
            flags += "."
        if not flags:
            raise self.wrong("the flags of a segment are wanted")
        if set(flags) - _FLAGS:
            if set(flags) <= _FLAGS | set("A0123456789"):
                raise Unsupported(line, "flags of accurate ECN")
            raise ScriptError(line, f"no flags: {flags}")
        return flags

    def _sequence(self) -> tuple[int, int]:
        line = self.token.line
        first = self.number()
        self.expect(":")
        end = self.number()
        self.expect("(")
        length = self.number()
        self.expect(")")
        if end != (first + length) % 2**32:
            raise ScriptError(line, f"{first}:{end} are not {length} bytes")
        return first, length

    def _options(self, outbound: bool) -> tuple[Option, ...] | None:
        # Behind a packet, < begins options and never another packet, which would have its time first.
        if not self.accept("<"):
            return ()
        if self.token.kind == "dots":
            if not outbound:
                raise self.wrong("<...> is for packets that are expected")
            self.take()
            self.expect(">")
            return None
        options = [self._option()]
        while self.accept(","):
            options.append(self._option())
        self.expect(">")
        return tuple(options)

    def _option(self) -> Option:
        line, kind = self.token.line, self.take().text
        if kind in _OPTIONS:
            return Option(kind, tuple(self.number() for _ in range(_OPTIONS[kind])))
        if kind == "TS":
            values = []
            for name in ("val", "ecr"):
                self.expect(name)
                values.append(self.number())
            return Option(kind, tuple(values))
        if kind == "sack":
            edges = []
            while self.token.kind == "number":
                edges.append(self.number())
                self.expect(":")
                edges.append(self.number())
            return Option(kind, tuple(edges))
        if kind in ("FO", "FOEXP", "md5", "ECN"):
            raise Unsupported(line, f"TCP option {kind}")
        raise ScriptError(line, f"no TCP option: {kind}")

    def _icmp(self, outbound: bool) -> Icmp:
        self.take()
        kind = self.take().text
        code = self.take().text if self.token.kind == "word" and self.token.text not in ("mtu", "id") else ""
        mtu = self.number() if self.accept("mtu") else 0
        if self.token.text == "id":
            raise Unsupported(self.token.line, "ICMP echo")
        seq, length = None, 0
        if self.accept("["):
            if self.token.text in ("udp", "raw"):
                raise Unsupported(self.token.line, "ICMP about other protocols than TCP")
            seq, length = self._sequence()
            self.expect("]")
        return Icmp(outbound, kind, code, mtu, seq, length)


def parse(text: str) -> Script:
    """The script in ``text``."""
    return Parser(text).script()

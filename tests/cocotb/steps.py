"""Steps of the benches of bad input."""

import struct

from tiptoe_verif.testbench.testbench import Bench

NO_LINGER = struct.pack("ii", 1, 0)


def counted(b: Bench, before: dict[str, int]) -> dict[str, int]:
    """Counters that have moved, the bystander's and those of good frames left out."""
    ordinary = (
        "RX_FRAMES", "RX_TCP_SEGMENTS", "TX_FRAMES", "TX_SEGMENTS", "EVENTS_WRITTEN", "RX_DUPLICATE_ACK",
        "TX_RETRANSMITS", "RTO_EXPIRED", "RX_OUT_OF_WINDOW", "FAST_RETRANSMITS", "RX_OUT_OF_ORDER",
    )  # fmt: skip
    now = b.counters()
    return {name: now[name] - before[name] for name in now if name not in ordinary and now[name] != before[name]}


def outcome(b: Bench, command: bytes) -> int:
    """Status of a command, as COMMAND_DONE tells it; ``command`` is packed with tag 0."""
    answers = []
    tag = b.toe.engine.commands.tag(lambda status, argument: answers.append(status))
    b.toe.engine.commands.post_control(command[:2] + tag.to_bytes(2, "little") + command[4:])
    b.until(lambda: answers, f"answer to {command[:8].hex()}")
    return answers[0]

"""The traffic of ``echo`` under cocotb; ``speed.under_cocotb`` runs it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from ..testbench.testbench import ENGINE_IP, ENGINE_MAC, Bench, engine_test
from ..wire.segment import ip_number, mac_number
from .echo import Client, Service
from .speed import RESULT, TOTAL


@engine_test(finish=False, stall=0.0, latency=range(20, 21), snd_ring_bytes=1 << 17, rcv_ring_bytes=1 << 17, stock=4)
def test_echo(b: Bench) -> None:
    """Bytes to the echo service and back."""
    total = int(os.environ[TOTAL])
    ip = ip_number(ENGINE_IP)
    client = Client(mac_number(ENGINE_MAC), ip, 0x020000000001, ip & ~0xFF | 1, total)

    def answer(frame: bytes) -> None:
        for sent in client.input(frame):
            b.line.inject(sent)

    b.line.hosts.append(answer)
    service = Service(b.socket())
    b.run(3000)
    first, begin = b.cycle, time.process_time()
    b.line.inject(client.begin())

    def done() -> bool:
        service.work()
        return client.done

    b.until(done, "the echo", cycles=10_000_000)
    speed = {"cycles": b.cycle - first, "cpu_s": time.process_time() - begin, "bytes": total}
    Path(os.environ[RESULT]).write_text(json.dumps(speed))

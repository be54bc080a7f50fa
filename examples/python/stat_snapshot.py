"""docs/simulation.md, "What goes on inside": figures of a connection between two engines."""

from tiptoe_verif.native.pair import Pair

pair = Pair("tiny")
listener = pair.b.socket()
listener.bind(("", 7))
listener.listen()
client = pair.a.socket()
try:
    client.connect(("10.0.0.2", 7))
except BlockingIOError:
    pair.run_until(client.writable, 1_000_000)
client.send(b"hello")
pair.run_us(20_000)
sim = pair.a

# [shown]
from tiptoe_verif.live.stat_server import snapshot

taken = snapshot(sim)
print(
    taken["connections"][0]["info"]["tcpi_rtt"],
    taken["devices"][0]["counters"]["TX_RETRANSMITS"],
    taken["engine"]["cycles"],
)
# [/shown]

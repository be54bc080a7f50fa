"""docs/getting-started.md: a connection between two simulated engines on a line that loses frames."""

# [shown]
from tiptoe_verif.native.pair import Pair
from tiptoe_verif.native.simulation import Impairment

with Pair("tiny", impairment=Impairment(loss=0.02, delay_us=500), seed=7) as pair:
    listener = pair.b.socket()
    listener.bind(("", 80))
    listener.listen()
    client = pair.a.socket()
    client.connect_ex(("10.0.0.2", 80))
    pair.run_until(listener.readable, 1_000_000)
    server, _ = listener.accept()
    server.setblocking(False)
    client.send(b"Hello")
    pair.run_until(server.readable, 1_000_000)
    print(server.recv(100))
# [/shown]

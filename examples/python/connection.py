"""docs/driver.md, "A connection in ten lines": the driver fetches a page from a server, which is another simulated engine."""

from tiptoe_verif.native.simulation import Simulation, Wire

device = Simulation("tiny", ip="10.0.0.1", mac="02:00:00:00:00:01", attach=False, cycles_per_us=125)
server = Simulation("tiny", ip="10.0.0.2", cycles_per_us=125)
Wire(device, server)
listener = server.socket()
listener.bind(("", 80))
listener.listen()


def serve():
    try:
        made, _ = listener.accept()
    except BlockingIOError:
        return
    made.send(b"HTTP/1.0 200 OK\r\n\r\nIt is there.\n")
    made.close()


server.tasks.append(serve)

# [shown]
from tiptoe_driver import EngineOptions, Socket, Stack, Tiptoe

stack = Stack()
Tiptoe(
    stack,
    device,
    address="10.0.0.1/24",
    mac="02:00:00:00:00:01",
    gateway="10.0.0.254",
    options=EngineOptions(rcv_ring_bytes=1 << 18),
)
with Socket(stack) as sock:
    sock.connect(("10.0.0.2", 80))
    sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
    while data := sock.recv(65536):
        print(data.decode(), end="")
# [/shown]

"""docs/driver.md, "Zero-copy": the application's memory is the socket's rings. The peer is another engine."""

from tiptoe_driver import Socket
from tiptoe_verif.native.pair import Pair

pair = Pair("tiny")
stack, toe = pair.a.stack, pair.a.toe
listener = pair.b.socket()
listener.bind(("", 80))
listener.listen()
page = b""


def parse(views):
    global page
    page += b"".join(views)


def serve():
    try:
        made, _ = listener.accept()
    except BlockingIOError:
        return
    made.send(b"HTTP/1.0 200 OK\r\n\r\nIt is there.\n")
    made.close()


pair.b.tasks.append(serve)

# [shown]
rcv, snd = toe.allocate_buffer(1 << 16), toe.allocate_buffer(1 << 14)  # .memory: the application's, and the device's
with Socket(stack) as sock:
    sock.set_buffers(rcv=rcv, snd=snd)
    sock.connect(("10.0.0.2", 80))
    sock.send_view()[0][:18] = b"GET / HTTP/1.0\r\n\r\n"  # goes where the device reads it
    sock.commit(18)
    while views := sock.recv_view():  # lies where the device has written it
        parse(views)
        sock.consume(sum(len(view) for view in views))
stack.sleep(lambda: not (rcv.in_use or snd.in_use), None)  # the engine has let go: the memory may serve another socket
# [/shown]

assert page.endswith(b"It is there.\n")
print(f"{len(page)} bytes without a copy")

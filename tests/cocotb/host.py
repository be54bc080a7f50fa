"""The host's side of the whole engine: blocking calls, many connections one after another, soft reset (run by test_engine.py)."""

import socket

from tiptoe_driver import Socket, create_connection, select
from tiptoe_driver.hardware import abi_gen as abi
from tiptoe_verif.testbench.peer import Host
from tiptoe_verif.testbench.reference import ReferenceTcp
from tiptoe_verif.testbench.steps import accepted, active, close_by_peer, close_by_us, exchange, listen, passive
from tiptoe_verif.testbench.testbench import PASSIVE, Bench, engine_test


@engine_test()
def test_blocking_calls(b: Bench) -> None:
    """A program as it is written for the standard library's sockets: every call blocks."""
    host = Host(b)
    data = b.rng.randbytes(9001)

    def accept(syn) -> None:
        server = ReferenceTcp(host, 8080, syn.sport, active=False)
        server.input(syn)
        server.send(data)
        server.close()

    host.listeners[8080] = accept
    with create_connection(b.stack, (host.ip, 8080), timeout=1) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        got = b""
        while part := sock.recv(1000):
            got += part
        assert got == data
    server = next(iter(host.endpoints.values()))
    b.until(lambda: server.over, "the end")
    assert server.received == data
    try:
        create_connection(b.stack, (host.ip, 8081), timeout=0.01)
    except TimeoutError:
        pass
    else:
        raise AssertionError("connected to nobody")


@engine_test()
def test_blocking_server(b: Bench) -> None:
    """accept, select and echo."""
    host = Host(b)
    with Socket(b.stack) as listener:
        listener.bind(("", 7))
        listener.listen()
        b.until(lambda: not b.toe.engine.commands.waiting, "LISTEN done")
        clients = [ReferenceTcp(host, 30000 + n, 7, active=True) for n in range(3)]
        data = [b.rng.randbytes(3000 + n) for n in range(3)]
        for client, what in zip(clients, data, strict=True):
            client.send(what)
            client.close()
        children: list[Socket] = []
        open_ = 3
        while open_:
            ready, _, _ = select(b.stack, [listener, *children], [], timeout=1)
            assert ready, "nothing to do, and yet not at the end"
            for sock in ready:
                if sock is listener:
                    children.append(listener.accept()[0])
                elif part := sock.recv(700):
                    sock.sendall(part)
                else:
                    sock.close()
                    children.remove(sock)
                    open_ -= 1
        b.until(lambda: all(client.over for client in clients), "the end")
        assert [client.received for client in clients] == data


@engine_test(stall=0.1, near_wrap=PASSIVE)
def test_many_connections(b: Bench) -> None:
    """Sixty connections one after another, opened and closed by either side: ids, generations and both rings go round."""
    host = Host(b)
    listener = listen(b)
    for n in range(60):
        if n % 2:
            peer, sock = active(b, host, port=7000 + n, local=50000 + n, iss=b.rng.getrandbits(32))
        else:
            peer, sock = passive(b, host, listener, port=40000 + n, iss=b.rng.getrandbits(32))
        exchange(b, peer, sock, b.rng.randbytes(1 + n), b.rng.randbytes(1 + 7 * n))
        if n % 5:
            close_by_peer(b, peer, sock)
        else:
            close_by_us(b, peer, sock)
    listener.close()
    assert b.register(abi.REG_COMMAND_HEAD) > 2 * b.toe.engine.commands.entries


@engine_test()
def test_soft_reset(b: Bench) -> None:
    """A soft reset in the midst of everything, several times: the engine comes back clean and works."""
    host = Host(b)
    for n in range(5):
        peers = [ReferenceTcp(host, 8000 + 10 * n + k, 51000 + 10 * n + k, active=False) for k in range(3)]
        for peer in peers:
            sock = b.socket()
            sock.bind(("", peer.engine_port))
            sock.connect_ex((host.ip, peer.port))
            sock.send(b.rng.randbytes(4096))
            peer.send(b.rng.randbytes(20_000))
        b.until(lambda peers=peers: all(len(peer.received) > 1000 for peer in peers), "data under way")
        b.run(b.rng.randrange(700))
        b.attach()
        for peer in peers:
            b.until(lambda peer=peer: peer.state == "reset", "the peer to hear that its connection is gone", 1_000_000)
        assert b.free_ids == 16
        peer, sock = active(b, host, port=7000 + n, local=50000 + n)
        exchange(b, peer, sock)
        close_by_peer(b, peer, sock)


@engine_test(near_wrap=PASSIVE)
def test_two_listeners(b: Bench) -> None:
    """Listeners are told apart by port and stop one by one; a table of four takes no fifth."""
    host = Host(b)
    listeners = [listen(b, port) for port in (80, 81, 443, 8080)]
    fifth = listen(b, 8443)
    assert b.toe.counters["listen_table_full"] == 1
    refused = host.connection(40001, 8443)
    refused.send("S")
    refused.expect("RA")
    for n, listener in enumerate(listeners):
        peer = host.connection(40010 + n, listener.getsockname()[1])
        peer.open()
        sock = accepted(b, listener)
        listener.close()
        exchange(b, peer, sock)
        close_by_peer(b, peer, sock)
    fifth.close()
    again = listen(b, 9000)
    peer, sock = passive(b, host, again)
    exchange(b, peer, sock)
    close_by_peer(b, peer, sock)
    again.close()
    b.expected_trouble = ("listen_table_full",)

"""docs/simulation.md: a scripted peer opens a connection to a listening socket."""

# [shown]
from pathlib import Path

from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from tiptoe_verif.native.simulation import Impairment, Peer, Simulation, Wire

link = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / IP(src="10.0.0.1", dst="10.0.0.2")


def answer(frame, time_us):  # frames in, frames out; see also peer.send and peer.received
    packet = Ether(frame)
    if TCP not in packet or packet[TCP].flags != "SA":
        return []
    return [bytes(link / TCP(sport=4000, dport=80, seq=100, ack=packet[TCP].seq + 1, flags="A"))]


with Simulation("tiny", ip="10.0.0.2", pcap=Path("build/run.pcap")) as sim:
    peer = Peer(answer)
    Wire(sim, peer, Impairment(loss=0.01, delay_us=500, seed=7))
    listener = sim.socket()  # non-blocking, as what it accepts; offloaded: tiptoe_driver's Socket
    listener.bind(("", 80))
    listener.listen()
    peer.send(bytes(link / TCP(sport=4000, dport=80, seq=99, flags="S")))
    sim.run_us(2_000)  # run for so long ...
    sim.run_until(listener.readable, 1_000_000)  # ... or until something holds
    connection, address = listener.accept()
# [/shown]

assert address == ("10.0.0.1", 4000)
print(f"accepted {address} after {sim.world.now_ns // 1000} us")

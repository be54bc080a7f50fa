"""Whole-engine cocotb benches: host memory, register port and frame ports around the engine, peers on the wire."""

"""Figures in cycles: throughput, cost of a segment, latency, speed of the simulation; with their bounds and a baseline."""

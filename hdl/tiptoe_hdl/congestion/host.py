"""The host's own: software writes cwnd and ssthresh (SET_CWND), the engine does not enlarge cwnd in congestion avoidance.
Slow start up to ssthresh, recovery and time-outs are RFC 5681's and RFC 6582's."""

from .program import NEVER, Algorithm

HOST = Algorithm(name="host", text="The host writes cwnd and ssthresh.", growth=NEVER, hosts=True)

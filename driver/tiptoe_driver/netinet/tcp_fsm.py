"""The states of a connection (FreeBSD's tcp_fsm.h, RFC 9293 section 3.3.2), numbered as the engine does."""

from ..hardware.abi_gen import State

TCPS_CLOSED = State.CLOSED
TCPS_LISTEN = State.LISTEN
TCPS_SYN_SENT = State.SYN_SENT
TCPS_SYN_RECEIVED = State.SYN_RECEIVED
TCPS_ESTABLISHED = State.ESTABLISHED
TCPS_CLOSE_WAIT = State.CLOSE_WAIT
TCPS_FIN_WAIT_1 = State.FIN_WAIT_1
TCPS_CLOSING = State.CLOSING
TCPS_LAST_ACK = State.LAST_ACK
TCPS_FIN_WAIT_2 = State.FIN_WAIT_2
TCPS_TIME_WAIT = State.TIME_WAIT
# The order of the states carries meaning, as in tcp_fsm.h: TCPS_HAVERCVDSYN is t_state >= TCPS_SYN_RECEIVED.

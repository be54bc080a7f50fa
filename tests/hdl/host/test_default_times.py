"""What the registers' reset values come to in seconds: RFC 9293 section 3.8.3's R2, TIME_WAIT, delayed acknowledgements."""

from tiptoe_hdl.host.register_map import register_map

TICKS = 1000
"""Ticks in a second, as nominal."""
RESET = {(r.name, f.name): f.reset for r in register_map().registers for f in r.fields}


def until_given_up(first: int, retransmissions: int) -> float:
    """Seconds from the first transmission until the connection is given up: RFC 6298's doubling up to RTO_MAX."""
    most = RESET["RTO_MAX", "VALUE"]
    return sum(min(first << k, most) for k in range(retransmissions + 1)) / TICKS


def test_r2_of_data_is_100_seconds_at_least() -> None:
    """With the least time-out there is: any other lasts longer."""
    assert until_given_up(RESET["RTO_MIN", "VALUE"], RESET["RETRIES", "REXMT_MAX"]) >= 100


def test_r2_of_a_syn_is_three_minutes_at_least() -> None:
    assert until_given_up(RESET["RTO_INITIAL", "VALUE"], RESET["RETRIES", "REXMT_MAX"]) >= 180


def test_time_wait_is_no_shorter_than_linux_s_and_a_delayed_ack_much_shorter_than_half_a_second() -> None:
    assert RESET["MSL_TICKS", "VALUE"] >= 60 * TICKS
    assert RESET["DELACK_TICKS", "VALUE"] < TICKS / 2


def test_first_time_out_is_a_second_and_the_largest_a_minute_at_least() -> None:
    assert RESET["RTO_INITIAL", "VALUE"] == TICKS and RESET["RTO_MAX", "VALUE"] >= 60 * TICKS

"""Sizes of an engine: what is chosen, and what is refused."""

import pytest

from tiptoe_hdl.config import SIM, TINY, EngineConfig


@pytest.mark.parametrize(("connections", "rows"), [(16, 16), (64, 32), (256, 128), (1024, 512), (65536, 32768)])
def test_rows_of_the_hash_tables_follow_the_connections(connections, rows):
    assert EngineConfig(connections=connections, syncache_entries=16).buckets_per_hash == rows
    assert TINY.with_(connections=connections).buckets_per_hash == rows
    assert SIM.with_(syncache_entries=16).with_(connections=connections).buckets_per_hash == rows


def test_rows_given_stay():
    given = EngineConfig(connections=64, buckets_per_hash=256)
    assert given.with_(connections=128).buckets_per_hash == 256
    assert SIM.with_(connections=1024, buckets_per_hash=64).buckets_per_hash == 64


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("connections", 8), ("connections", 100), ("connections", 131072), ("data_width", 48), ("addr_width", 31),
        ("listeners", 3), ("next_hops", 0), ("buckets_per_hash", 24), ("syncache_entries", 128),
    ],
)  # fmt: skip
def test_sizes_that_cannot_be(field, value):
    with pytest.raises(ValueError, match=field):
        EngineConfig(**{"connections": 64, field: value})

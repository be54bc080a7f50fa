"""Models in Python: the connection table's hash and its two rows of four ways."""

from __future__ import annotations

from tiptoe_hdl.messages import Status, TableOp

MASK64 = (1 << 64) - 1


def four_tuple(laddr: int, faddr: int, lport: int, fport: int) -> dict[str, int]:
    return {"laddr": laddr, "faddr": faddr, "lport": lport, "fport": fport}


def random_tuple(rng) -> dict[str, int]:
    return four_tuple(rng.getrandbits(32), rng.getrandbits(32), rng.getrandbits(16), rng.getrandbits(16))


def key_of(tuple_: dict[str, int]) -> tuple[int, ...]:
    return tuple(tuple_[field] for field in ("laddr", "faddr", "lport", "fport"))


def folded(tuple_: dict[str, int]) -> int:
    laddr = tuple_["laddr"]
    low_reversed = int(f"{laddr & 0xFFFF:016b}"[::-1], 2)
    return tuple_["faddr"] | tuple_["fport"] << 32 | (tuple_["lport"] ^ laddr >> 16 ^ low_reversed) << 48


def hash_bits(tuple_: dict[str, int], key: int, bits: int) -> int:
    """One step of the key register a hash bit: the register holds K[j] to K[j + 63]."""
    x, register, result = folded(tuple_), key ^ 0x9E3779B97F4A7C15, 0
    for j in range(bits):
        result |= ((x & register).bit_count() & 1) << j
        feedback = (register ^ register >> 1 ^ register >> 3 ^ register >> 4) & 1
        register = register >> 1 | feedback << 63
    return result


class TableModel:
    """What the table must hold and answer, entry by entry."""

    def __init__(self, cfg, key: int):
        self.row_bits = (cfg.buckets_per_hash - 1).bit_length()
        self.key = key
        self.rows: list[list[set]] = [[set() for _ in range(cfg.buckets_per_hash)] for _ in range(2)]
        self.entries: dict[tuple[int, ...], tuple[int, int]] = {}

    def rows_of(self, tuple_) -> list[set]:
        bits = hash_bits(tuple_, self.key, 2 * self.row_bits)
        mask = (1 << self.row_bits) - 1
        return [self.rows[0][bits & mask], self.rows[1][bits >> self.row_bits]]

    def lookup(self, tuple_) -> dict[str, int]:
        target = self.entries.get(key_of(tuple_))
        if target is None:
            return {"hit": 0, "is_syncache": 0, "full": self.full(tuple_), "index": 0}
        return {"hit": 1, "is_syncache": target[0], "full": self.full(tuple_), "index": target[1]}

    def full(self, tuple_) -> int:
        return int(all(len(row) == 4 for row in self.rows_of(tuple_)))

    def update(self, update) -> Status:
        key, target = key_of(update["tuple"]), (update["is_syncache"], update["index"])
        first, second = self.rows_of(update["tuple"])
        match update["op"]:
            case TableOp.INSERT:
                if key in self.entries:
                    return Status.EXISTS
                if len(first) == 4 and len(second) == 4:
                    return Status.TABLE_FULL
                (second if len(second) < len(first) else first).add(key)
                self.entries[key] = target
            case TableOp.REPLACE:
                if key not in self.entries:
                    return Status.BAD_STATE
                self.entries[key] = target
            case TableOp.DELETE:
                if self.entries.get(key) != target:
                    return Status.BAD_STATE
                del self.entries[key]
                first.discard(key)
                second.discard(key)
        return Status.OK

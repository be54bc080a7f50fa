"""docs/driver.md: the bytes that the C driver's HTTP server has at /bytes/N, for who wants to compare: pattern.py N."""

import hashlib
import sys


# [shown]
def pattern(length):
    words = (2654435761 * n & 0xFFFF_FFFF for n in range(length // 4 + 1))
    return b"".join(word.to_bytes(4, "little") for word in words)[:length]


# [/shown]


length = int(sys.argv[1]) if sys.argv[1:] else 1 << 16
print(f"{length} bytes, sha256 {hashlib.sha256(pattern(length)).hexdigest()}")

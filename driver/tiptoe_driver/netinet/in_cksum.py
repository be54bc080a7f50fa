"""The Internet checksum (RFC 1071; FreeBSD's in_cksum.c)."""

IPPROTO_TCP = 6


def internet_checksum(data: bytes | bytearray | memoryview) -> int:
    """RFC 1071 checksum; 0 over data that includes a right one."""
    if len(data) % 2:
        data = bytes(data) + b"\0"
    # 2**16 is 1 modulo 2**16 - 1, so the whole number's remainder is the ones' complement sum.
    total = int.from_bytes(data) % 0xFFFF
    if total == 0 and any(data):
        total = 0xFFFF
    return total ^ 0xFFFF

"""Bus interfaces of the engine with their standard names (Arm IHI 0022H, AMBA AXI4 and AXI4-Lite).

All signatures are written from the initiator's view: a master has an ``Out(...)`` member, a slave an
``In(...)`` one.
"""

from amaranth.hdl import Value, unsigned
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out


class Burst(enum.Enum, shape=unsigned(2)):
    """AxBURST (A3.4.1)."""

    FIXED = 0
    INCR = 1
    WRAP = 2


class Response(enum.Enum, shape=unsigned(2)):
    """RRESP and BRESP (A3.4.4)."""

    OKAY = 0
    EXOKAY = 1
    SLVERR = 2
    DECERR = 3


READ_CACHE = 0b0011
"""ARCACHE: normal, non-cacheable, bufferable."""

WRITE_CACHE = 0b0010
"""AWCACHE: normal, non-cacheable, *not* bufferable: the response comes from the final destination, so that an
event written after a payload's response is never seen before that payload (A4.4)."""

PROTECTION = 0b010
"""AxPROT: data, non-secure, unprivileged."""


def is_error(response) -> Value:
    """SLVERR or DECERR; 1 bit."""
    return Value.cast(response)[1]


def _address_channel(prefix: str, addr_width: int, id_width: int) -> dict:
    return {
        f"{prefix}id": Out(id_width),
        f"{prefix}addr": Out(addr_width),
        f"{prefix}len": Out(8),
        f"{prefix}size": Out(3),
        f"{prefix}burst": Out(Burst),
        f"{prefix}lock": Out(1),
        f"{prefix}cache": Out(4),
        f"{prefix}prot": Out(3),
        f"{prefix}valid": Out(1),
        f"{prefix}ready": In(1),
    }


class Axi4ReadSignature(wiring.Signature):
    """AXI4 read address and read data channels: ``ar*``, ``r*``.

    Parameters
    ----------
    addr_width, data_width, id_width
        Bits of ARADDR, RDATA, and ARID and RID.
    """

    def __init__(self, addr_width: int, data_width: int, id_width: int = 1):
        self.addr_width, self.data_width, self.id_width = addr_width, data_width, id_width
        super().__init__(
            {
                **_address_channel("ar", addr_width, id_width),
                "rid": In(id_width),
                "rdata": In(data_width),
                "rresp": In(Response),
                "rlast": In(1),
                "rvalid": In(1),
                "rready": Out(1),
            }
        )


class Axi4WriteSignature(wiring.Signature):
    """AXI4 write address, write data and write response channels: ``aw*``, ``w*``, ``b*``.

    Parameters
    ----------
    addr_width, data_width, id_width
        Bits of AWADDR, WDATA, and AWID and BID.
    """

    def __init__(self, addr_width: int, data_width: int, id_width: int = 1):
        self.addr_width, self.data_width, self.id_width = addr_width, data_width, id_width
        super().__init__(
            {
                **_address_channel("aw", addr_width, id_width),
                "wdata": Out(data_width),
                "wstrb": Out(data_width // 8),
                "wlast": Out(1),
                "wvalid": Out(1),
                "wready": In(1),
                "bid": In(id_width),
                "bresp": In(Response),
                "bvalid": In(1),
                "bready": Out(1),
            }
        )


class AxiLiteSignature(wiring.Signature):
    """AXI4-Lite, all five channels, 32-bit data.

    Parameters
    ----------
    addr_width
        Bits of AWADDR and ARADDR.
    """

    def __init__(self, addr_width: int = 20):
        self.addr_width = addr_width
        super().__init__(
            {
                "awaddr": Out(addr_width),
                "awprot": Out(3),
                "awvalid": Out(1),
                "awready": In(1),
                "wdata": Out(32),
                "wstrb": Out(4),
                "wvalid": Out(1),
                "wready": In(1),
                "bresp": In(Response),
                "bvalid": In(1),
                "bready": Out(1),
                "araddr": Out(addr_width),
                "arprot": Out(3),
                "arvalid": Out(1),
                "arready": In(1),
                "rdata": In(32),
                "rresp": In(Response),
                "rvalid": In(1),
                "rready": Out(1),
            }
        )

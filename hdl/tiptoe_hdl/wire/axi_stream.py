"""AXI4-Stream with its standard names (Arm IHI 0051A), for frames."""

from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class AxiStreamSignature(wiring.Signature):
    """tdata, tkeep, tvalid, tready, tlast and, with ``user_width``, tuser; seen from the transmitter.

    Parameters
    ----------
    data_width : int
        Bits of TDATA; TKEEP has one bit a byte.
    user_width : int
        Bits of TUSER; 0 leaves it out.
    """

    def __init__(self, data_width: int, user_width: int = 0):
        self.data_width, self.user_width = data_width, user_width
        members = {
            "tdata": Out(data_width),
            "tkeep": Out(data_width // 8),
            "tvalid": Out(1),
            "tready": In(1),
            "tlast": Out(1),
        }
        if user_width:
            members["tuser"] = Out(user_width)
        super().__init__(members)

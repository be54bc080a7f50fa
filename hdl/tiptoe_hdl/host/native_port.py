"""LiteDRAM's native port: what a memory controller wants of those who read and write its words."""

from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

WORD_BYTES = 16
"""A word is a burst of a DDR3 chip of 16 bits: eight times two bytes."""
WORD_LOG2 = 4


class NativePortSignature(wiring.Signature):
    """A port of the controller's crossbar, 128 bits; seen from the user.

    A command is taken when ``cmd_valid`` and ``cmd_ready`` are high, and holds until then. Commands of all ports to one address
    are carried out in the order in which they were taken: an address belongs to one bank, and a bank has one queue. A write's
    word is taken with ``wdata_ready``, some cycles after its command and without asking ``wdata_valid``: it must be there.
    A read's word comes with ``rdata_valid``, and nobody can hold it up. Words of one port come and go in its commands' order.

    Members
    -------
    cmd_valid, cmd_ready, cmd_we, cmd_addr
        Commands; ``cmd_addr`` counts words.
    wdata_valid, wdata_ready, wdata, wdata_we
        Words to write, with an enable for each byte.
    rdata_valid, rdata
        Words read.
    """

    def __init__(self, addr_width: int):
        super().__init__(
            {
                "cmd_valid": Out(1),
                "cmd_ready": In(1),
                "cmd_we": Out(1),
                "cmd_addr": Out(addr_width),
                "wdata_valid": Out(1),
                "wdata_ready": In(1),
                "wdata": Out(8 * WORD_BYTES),
                "wdata_we": Out(WORD_BYTES),
                "rdata_valid": In(1),
                "rdata": In(8 * WORD_BYTES),
            }
        )

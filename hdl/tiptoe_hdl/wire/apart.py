"""Attributes of memories whose reads and writes never meet."""

APART = {"no_rw_check": 1, "rw_addr_collision": "no"}
"""``attrs`` of a memory of which no address is read in the cycle in which it is written, or nobody looks at what is read then:
why stands beside each. Block memory leaves such a collision undefined, and simulators show the old word; without these attributes
synthesis puts comparators and multiplexers around the memory to keep to that. yosys and Vivado each know one of them."""

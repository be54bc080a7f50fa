"""The hardware as the driver sees it: the seam, registers, rings, memory, connection ids. Knows nothing of TCP above it."""

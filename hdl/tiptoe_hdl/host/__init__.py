"""Host interface: registers, doorbells, command and event rings, DMA."""

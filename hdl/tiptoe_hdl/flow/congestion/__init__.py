"""The unit that runs congestion control algorithms beside the TCB pipeline."""

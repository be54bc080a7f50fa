"""Connection state: lookup table, TCB store, transition pipeline, congestion control, timers."""

"""What stands between the engine and a MAC that neither waits for frames nor may be kept waiting (IEEE 802.3 clause 4)."""

"""The simulated engine behind a socket, for drivers in any language: docs/seam.md."""

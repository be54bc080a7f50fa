"""The wire: impairments, captures, and an independent checker of every frame."""

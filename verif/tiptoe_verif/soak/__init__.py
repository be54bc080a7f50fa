"""Loads of many connections through live sessions, and a soak that mixes them: `python -m tiptoe_verif.soak`."""

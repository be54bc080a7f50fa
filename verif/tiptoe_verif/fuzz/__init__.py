"""Stateful fuzzing of the whole engine: peers without manners, a host at work, a bystander whose data must pass."""

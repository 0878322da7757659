"""What spark learns to do, one module for each kind of task. Every module has `dialogue(rng)` or makes items for it."""

"""The training loop, what stops it, and its checkpoints."""

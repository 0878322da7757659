"""The learner: micro-batches, losses, optimizer steps and checkpoints."""

"""The hub: a process that receives spans, stores rollouts, and drives training. No torch."""

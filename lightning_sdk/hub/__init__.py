"""The hub as the agent's process knows it: where it is, how it is started and what it is asked."""

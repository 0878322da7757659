"""The hub from the agent's process: where it is, how it is started and what it is asked."""

"""vLLM: server processes, the one address in front of them, and loading new weights into them in place."""

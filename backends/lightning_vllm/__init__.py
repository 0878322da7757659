"""vLLM: servers as processes of ours, the one address in front of them, and weights put into them in place."""

"""Lightning SDK: train an AI agent that already exists."""

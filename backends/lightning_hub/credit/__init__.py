"""From rewards to the rows of one update, each sampled token with its advantage and its weight."""

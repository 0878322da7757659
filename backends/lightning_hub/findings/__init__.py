"""What can be wrong with rollouts, each finding with its cause and its remedy."""

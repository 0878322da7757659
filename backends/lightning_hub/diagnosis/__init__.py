"""What a round of rollouts shows, before and while it is trained on."""

"""Where calls to models are caught, and how they find the rollout and the role that they belong to."""

"""Learning from the stored rollouts of earlier runs, and scoring them again."""

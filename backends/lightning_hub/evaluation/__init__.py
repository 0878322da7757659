"""Scores on held-out tasks, and whether one is better than another."""

"""Means with intervals, trends and ranks."""

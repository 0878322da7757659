"""What a run's folder tells of whether it learned, and why not."""

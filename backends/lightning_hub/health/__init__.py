"""What a run's folder shows about whether it learned, and why not."""

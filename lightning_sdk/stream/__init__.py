"""From this process to the hub: events, batches, what waits for the hub, and what is kept when the process ends."""

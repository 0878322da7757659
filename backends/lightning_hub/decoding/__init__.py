"""What agents' processes sent, made into calls, spans and control events."""

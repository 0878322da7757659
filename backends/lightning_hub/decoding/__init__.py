"""Turns what agents' processes sent into calls, spans and control events."""

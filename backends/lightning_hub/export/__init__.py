"""Finished rollouts as OpenTelemetry spans."""

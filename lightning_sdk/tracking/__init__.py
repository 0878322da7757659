"""Trackers: tools that keep experiments, such as W&B and MLflow, and what they are told of a run."""

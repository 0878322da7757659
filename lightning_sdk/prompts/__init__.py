"""Prompts: finds the texts in requests that tell a model how to behave, and replaces them there."""

"""Prompts: the texts that tell a model how to behave, found in requests and replaced there."""

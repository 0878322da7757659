"""Shared by backends that run in a child process of the hub: starting it, calling it, watching it, stopping it."""

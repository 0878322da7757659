"""Runs written into files: tables for other programs, traces, and the page itself with its data inside."""

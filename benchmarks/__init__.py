"""Measurements: each a command that prints what it did, on what, and the figures."""

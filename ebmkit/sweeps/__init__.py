"""Sweeps: a base recipe with many `--set` values, each a run of its own, and one table at the end."""

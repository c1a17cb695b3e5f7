"""Engines: who owns the backward and the optimizer step. The trainer sees one interface."""

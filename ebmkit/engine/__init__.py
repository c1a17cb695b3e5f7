"""Engines: who owns the optimizer step. The trainer sees this one interface."""

from ebmkit.engine.interface import Engine
from ebmkit.engine.plain import PlainEngine

__all__ = ["Engine", "PlainEngine"]

"""The command line: one module per group of commands; what needs torch is imported when a command runs."""

from ebmkit.cli.app import main

__all__ = ["main"]

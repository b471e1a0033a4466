"""The command line: parse, call, print."""

from tuneoff.cli.app import main

__all__ = ["main"]

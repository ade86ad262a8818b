"""The command line: parse, call, print. No decisions are made here."""

from understudy.cli.main import main

__all__ = ["main"]

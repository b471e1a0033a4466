"""The command line: parse, call, print."""

from tuneoff.cli.stopping import stops_in_one_line


def main() -> None:
    """Run the command line. A signal to stop, also one during the imports, ends it in one line."""
    with stops_in_one_line():
        from tuneoff.cli.app import main as run

        run()


__all__ = ["main"]

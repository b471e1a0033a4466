"""python -m tuneoff."""

from tuneoff.cli import main

main()

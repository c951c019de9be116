"""`python -m ragbot`."""

from ragbot.cli import main

main()

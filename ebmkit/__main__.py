"""`python -m ebmkit`."""

from ebmkit.cli import main

main()

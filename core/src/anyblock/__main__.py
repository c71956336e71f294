"""`python -m anyblock`."""

from anyblock.cli import main

main()

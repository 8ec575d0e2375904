"""`python -m residuum`: the same as the command `residuum`."""

import sys

from residuum.cli import main

if __name__ == "__main__":
    sys.exit(main())

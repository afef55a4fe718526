"""The command line without its script: ``python -m cellflow`` is ``cellflow``."""

import sys

from cellflow.cli import main

if __name__ == "__main__":
    sys.exit(main())

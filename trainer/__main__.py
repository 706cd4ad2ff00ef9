"""``python -m hamr_edge.trainer``: ``hamr-edge train`` as torchrun starts it, which takes modules and no commands."""

import sys

from hamr_edge.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])

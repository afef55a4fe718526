"""The command line."""

from benchmarks.command import dispatch
from benchmarks.speed import __doc__ as about

if __name__ == "__main__":
    dispatch("speed", about, ("training", "images", "trajectory", "toys", "perturbation"), default="training")

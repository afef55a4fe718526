"""The command line: ``python -m benchmarks.images translation task=shapes method=all``."""

from benchmarks.command import dispatch
from benchmarks.images import __doc__ as about

if __name__ == "__main__":
    dispatch("images", about, ("translation", "generation", "few_step", "features"))

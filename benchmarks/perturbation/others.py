"""The peers."""

from benchmarks.perturbation.baselines import Method

OTHERS: dict[str, Method] = {}

"""How many inputs, in which order: few and always the same by default, thousands from a seed by `make fuzz`."""

from hypothesis import HealthCheck, Phase, settings

API_EXAMPLES, LINE_EXAMPLES = 140, 60
"""Inputs in the default run, of Python and of the command line: 200 in all, 40 seconds at most."""
MANY_API_EXAMPLES, MANY_LINE_EXAMPLES = 10_000, 1_000
"""Inputs of `make fuzz`."""


def by_default(examples: int) -> settings:
    """Return the settings of the default run: the same inputs every time, nothing kept on disk, no clock."""
    return settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],
    )


def counting(examples: int) -> settings:
    """Return the settings of a count: as many inputs as asked for, from the seed that is set, all judged."""
    return settings(
        max_examples=examples,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )

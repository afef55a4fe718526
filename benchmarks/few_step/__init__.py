"""Few steps: flow maps and reflow beside the solver, ``python -m benchmarks.few_step``; images: `benchmarks.images`."""

"""Benchmarks: what is measured is written to ``benchmarks/results`` with the command that made it."""

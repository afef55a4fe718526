"""Flows and Schrödinger bridges in the plane, beside published numbers: ``python -m benchmarks.toys``."""

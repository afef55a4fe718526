"""Translating one set of images into another, unpaired: ``python -m benchmarks.translation task=shapes``."""

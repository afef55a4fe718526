"""Flow matching beside diffusion, from noise to images: ``python -m benchmarks.generation dataset=mnist``."""

"""Objectives: what is minimised."""

from cellflow.objectives.velocity import NoiseMatching, Objective, VelocityFromNoise, VelocityMatching

__all__ = ["NoiseMatching", "Objective", "VelocityFromNoise", "VelocityMatching"]

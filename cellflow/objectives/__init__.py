"""Objectives: what is minimised."""

from cellflow.objectives.bridge import BridgeMatching, VelocityHead
from cellflow.objectives.velocity import NoiseMatching, Objective, VelocityFromNoise, VelocityMatching

__all__ = ["BridgeMatching", "NoiseMatching", "Objective", "VelocityFromNoise", "VelocityHead", "VelocityMatching"]

"""Objectives: the losses that training minimises."""

from cellflow.objectives.bridge import BridgeMatching
from cellflow.objectives.ends import DampedVelocity, EndPointMatching
from cellflow.objectives.energy import PathEnergy
from cellflow.objectives.flow_map import FlowMapObjective
from cellflow.objectives.flow_map_matching import (
    EulerianMatching,
    FlowMapMatching,
    LagrangianMatching,
    MeanVelocityMatching,
    SemigroupMatching,
)
from cellflow.objectives.growth import GrowthMatching
from cellflow.objectives.matching import NoiseMatching, Objective, VelocityFromNoise, VelocityMatching
from cellflow.objectives.trajectory import TrajectoryMatching

__all__ = [
    "BridgeMatching",
    "DampedVelocity",
    "EndPointMatching",
    "EulerianMatching",
    "FlowMapMatching",
    "FlowMapObjective",
    "GrowthMatching",
    "LagrangianMatching",
    "MeanVelocityMatching",
    "NoiseMatching",
    "Objective",
    "PathEnergy",
    "SemigroupMatching",
    "TrajectoryMatching",
    "VelocityFromNoise",
    "VelocityMatching",
]

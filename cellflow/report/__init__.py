"""Reports: one self-contained HTML page for a run, and its figures as files."""

from cellflow.report.cells import write
from cellflow.report.conditions import write_perturbation
from cellflow.report.image_scores import Split
from cellflow.report.images import write_generation, write_translation

__all__ = ["Split", "write", "write_generation", "write_perturbation", "write_translation"]

"""Reports: one self-contained HTML page for a run, and its figures as files."""

from cellflow.report.page import write

__all__ = ["write"]

"""Reports: one self-contained HTML page for a run, and its figures as files."""

from cellflow.report.image_page import Held, write_generation, write_translation
from cellflow.report.page import write

__all__ = ["Held", "write", "write_generation", "write_translation"]

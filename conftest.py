"""For every test, those in docstrings included: one thread, and no window."""

import matplotlib as mpl
import torch

mpl.use("Agg")
torch.set_num_threads(1)

"""One training of each verb, small: fit, distil and translate, in Python and on the command line."""

import os
import shlex
import signal
import sys
from functools import partial

import torch

import cellflow as cf
from cellflow.cli import main

NETWORK = partial(cf.networks.MLP, width=8, depth=1)
SMALL = {"steps": 8, "batch_size": 8, "network": NETWORK, "regularize": False, "device": "cpu"}
FEW = {"recipe": cf.training.Recipe(warmup=2, schedule="constant")}


def cells(slower=1.0):
    found = cf.datasets.branching((40, 60, 50), times=(0, 1, 5), seed=0)
    found.obs["time"] = found.obs["time"].to_numpy() * slower
    return found


def cells_flow(**settings):
    return cf.SnapshotFlow(rep="X_latent", **SMALL | FEW | settings)


def fit(run, **settings):
    return cells_flow(**settings).fit(cells(), run=run).field_


def distil(run, steps=8):
    flow = cells_flow(steps=1).fit(cells())
    return flow.distill(cells(), steps=steps, run=run).flow_map_


def translate(run, **settings):
    x = torch.randn(40, 2, generator=cf.generator(seed=0))
    return cf.DomainTranslator(**SMALL | FEW | settings).fit(x, x + 3, run=run).field_


ALL_TRAININGS = {"fit": fit, "distil": distil, "translate": translate}


def refine(run, *, stochastic=False):
    """Two rounds on pairs of the model's own: reflow, or by its diffusion, of which every pair is drawn."""
    x = torch.randn(40, 2, generator=cf.generator(seed=0))
    noisy = {"path": cf.paths.BrownianBridge(0.5), "stochastic": True} if stochastic else {}
    flow = cf.DomainTranslator(**SMALL | FEW | noisy | {"steps": 2}).fit(x, x + 3)
    coupling = cf.training.MarkovianFitting(0.5, solver=2) if stochastic else cf.training.Reflow(solver=2)
    return flow.refine(x, x + 3, rounds=2, steps=5, coupling=coupling, run=run)


ALL_REFINEMENTS = {"reflow": refine, "diffusion": partial(refine, stochastic=True)}


def refine_in(kind, folder):
    """Refine in a folder, with a save every second step."""
    ALL_REFINEMENTS[kind](cf.Run(folder, save_every=2))


def weights(module):
    return torch.cat([value.flatten() for value in module.state_dict().values()])


def train(verb, folder, resume=False, last=None):
    """Train in a folder, with a save every third step; be killed after step ``last``."""

    def look(found):
        if last is not None:
            os.kill(os.getpid(), signal.SIGKILL)

    ALL_TRAININGS[verb](cf.Run(folder, resume=resume, save_every=3, watch=look, watch_every=last or 1000))


def command(words, log):
    """Run a command, with what it says in a file; the exit code of the process is that of the command."""
    torch.set_num_threads(1)
    said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(said, 1)
    os.dup2(said, 2)
    sys.exit(main(words))


def printed(log):
    """Return the words of the command that a log says to go on with."""
    line = next(line for line in log.read_text().splitlines() if line.strip().startswith("cellflow "))
    return shlex.split(line)[1:]

"""What each of two processes does under torchrun: trainings together, and what they say of them. Run by test_shared."""

import contextlib
import io
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import torch
from test_training import QUICK, make_batches, run, weights

import cellflow as cf
from cellflow.batch import Batch
from cellflow.cli import cells, distillation, perturbation, translation
from cellflow.cli import main as cellflow
from cellflow.errors import CheckpointError
from cellflow.objectives import VelocityMatching
from cellflow.processes import joined
from cellflow.together import LostProcessError
from cellflow.training import EarlyStopping, Run, loop
from cellflow.training.checkpoint import STATE

HERE = ["device=cpu", "threads=1", "progress=false"]
CELLS = ["data.time_key=time", "data.rep=X_latent", *HERE, "validate=false", "report=false"]
UNET = ["network=unet", "network.width=4", "network.multipliers=[1,2]", "network.blocks=1"]


def recorded(into, act=lambda step: None, times=1.0):
    """The usual objective, which notes its losses, and does something in each step."""

    def objective(field, batch, *, generator):
        found = VelocityMatching()(field, batch, generator=generator)
        found = {name: value * times for name, value in found.items()}
        into.append(float(found["loss"].detach()))
        act(len(into))
        return found

    return objective


def halfway(field, batch, *, generator):
    """A loss that draws nothing."""
    x = (batch.x0 + batch.x1) / 2
    return {"loss": (field(torch.full((len(x),), 0.5), x) - batch.x1 + batch.x0).square().mean()}


def fixed(per_step):
    """Batches of 8 pairs that are joined, so many in each."""
    x = torch.randn(60, 16, 2, generator=cf.generator(5))
    each = [Batch(one[:8], one[8:]) for one in x]
    return [Batch(*(torch.cat(side) for side in zip(*(one[:2] for one in each[k : k + per_step]), strict=True)))
            for k in range(0, 60, per_step)]  # fmt: skip


def signals_come_again():
    """A process that torchrun ends ignores what it is sent; this one goes on."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def said_by(*words):
    """Return how a command ended, and what it said."""
    with contextlib.redirect_stderr(io.StringIO()) as said:
        code = cellflow([*words])
    return code, said.getvalue()


def in_the_loop(fabric, folder, found):
    """Trainings of `cellflow.training.fit`."""
    rank, own, told = fabric.global_rank, [], []
    whole, history = run(
        objective=recorded(own),
        steps=25,
        run=Run(fabric=fabric),
        on_step=lambda step, terms: told.append(terms["loss"]),
    )
    found |= {"own": own, "history": history.columns, "told": told, "weights": weights(whole)}
    found["fixed"] = weights(run(objective=halfway, batches=fixed(1), steps=20, run=Run(fabric=fabric))[0])

    stopping = EarlyStopping([next(iter(make_batches(seed=3)))], 5)
    _, history = run(steps=60, run=Run(fabric=fabric), stopping=stopping)
    found["stopping"] = history.columns

    for sender in (0, 1):  # a signal that only one of the processes gets, twice: torchrun passes on what came already
        place = folder / f"signal {sender}"

        def interrupt(step, sender=sender):
            if rank == sender and step in (7, 8):
                os.kill(os.getpid(), signal.SIGTERM)

        try:
            run(objective=recorded([], interrupt), steps=25, run=Run(place, fabric=fabric))
        except KeyboardInterrupt as stop:
            found[f"signal {sender}"] = (str(stop), (place / STATE).exists())
        signals_come_again()
        fabric.barrier()
        if sender == rank == 0:
            found |= alone(place, folder)
        again, history = run(steps=25, run=Run(place, resume=True, fabric=fabric))
        found[f"resumed {sender}"] = (weights(again), history.columns)

    try:
        run(objective=recorded([], times=float("nan") if rank else 1.0), steps=25, run=Run(fabric=fabric))
    except FloatingPointError as error:
        found["not finite"] = str(error)

    try:
        run(steps=25, run=Run(folder / "held", fabric=fabric))
    except CheckpointError as error:
        found["held"] = str(error)

    saved = []
    run(
        objective=recorded([], lambda step: saved.append((folder / "clock" / STATE).exists())),
        steps=25,
        run=Run(folder / "clock", save_minutes=1e-9, fabric=fabric),
    )
    found["clock"] = saved


def alone(place, folder):
    """What one process makes of what two have begun."""
    shutil.copytree(place, folder / "copy", ignore=shutil.ignore_patterns(".lock*"))
    try:
        run(steps=25, run=Run(folder / "copy", resume=True))
    except CheckpointError as error:
        refused = str(error)
    twice = cf.training.Recipe(warmup=QUICK.warmup, learning_rate=QUICK.learning_rate, accumulate=2)
    field, _ = run(steps=25, recipe=twice, run=Run(folder / "copy", resume=True))
    return {"refused": refused, "alone": weights(field)}


def by_estimators(found):
    """A flow with members of a coupling that counts how often it is asked."""
    asked = []

    def counted(x0, x1, a=None, b=None):
        asked.append(len(x0))
        return cf.couplings.Exact()(x0, x1, a, b)

    flow = cf.SnapshotFlow(rep="X_latent", steps=8, batch_size=8, coupling=counted, ensemble=2, device="cpu")
    flow.fit(cf.datasets.branching(seed=0)[::8], run=Run(devices="auto", progress=False))
    found["flow"] = [weights(one.field_) for one in (flow, *flow.members)]
    found["asked"] = len(asked)


def by_commands(rank, folder, found):
    """Commands of the command line, of which one is interrupted and goes on; reports are written in other tests."""
    file, cut = folder / "cells.h5ad", loop.check_batch
    for room in (cells, perturbation, translation):
        room.write_report = lambda *given, **settings: None
    distillation.few_steps.compare_cells, distillation._compare = (lambda *given, **settings: None,) * 2
    out, steps = [f"out={folder / 'first'}"], []

    def cutting(batch):
        steps.append(0)
        if rank and len(steps) == 7:
            os.kill(os.getpid(), signal.SIGINT)
        return cut(batch)

    fit = ["fit", f"data.path={file}", "steps=25", *CELLS]
    loop.check_batch = cutting
    found["stopped"] = said_by(*fit, *out)
    loop.check_batch = cut
    signals_come_again()
    found["fit"] = said_by(*fit, *out, "resume=true")
    found["again"] = said_by(*fit, *out)
    found["distill"] = said_by("distill", f"model={folder / 'first'}", "steps=3", *HERE)
    treated = [f"data.path={folder / 'treated.h5ad'}", "conditions.treatment=drug", "data.rep=X_pca", "validate=false"]
    found["perturb"] = said_by("perturb", *treated, "steps=3", "regularize=false", *HERE, f"out={folder / 'drugs'}")
    images = [f"source={folder / 'dark'}", f"target={folder / 'bright'}", "holdout=0.25", "solver.steps=2", *UNET]
    found["translate"] = said_by("translate", *images, "steps=3", "batch_size=4", *HERE, f"out={folder / 'images'}")
    found["many"] = said_by("fit", f"data.path={file}", *CELLS, "devices=3")


def lost(fabric, folder):
    """The second process dies in a training; the first says so, whatever torchrun sends it meanwhile."""
    rank = fabric.global_rank
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        run(
            objective=recorded([], lambda step: os._exit(3) if rank and step == 7 else None),
            steps=25,
            run=Run(folder / "lost", save_every=5, fabric=fabric),
        )
    except LostProcessError as error:
        (folder / "lost.txt").write_text(str(error))
    os._exit(0)


def main(folder):
    torch.set_num_threads(1)
    fabric, found = joined("auto", device="cpu"), {}
    in_the_loop(fabric, folder, found)
    by_estimators(found)
    by_commands(fabric.global_rank, folder, found)
    torch.save(found, folder / f"{fabric.global_rank}.pt")
    fabric.barrier()
    lost(fabric, folder)


def write_data(folder):
    """The cells and images of the commands."""
    import anndata
    import pandas as pd
    from test_image_commands import write_folder

    cf.datasets.branching(seed=0)[::8].copy().write_h5ad(folder / "cells.h5ad")
    x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    drugs = pd.DataFrame({"drug": np.where(np.arange(60) < 30, "control", "A")}, index=[f"c{k}" for k in range(60)])
    anndata.AnnData(x, obs=drugs, obsm={"X_pca": x + (drugs["drug"] == "A").to_numpy()[:, None]}).write_h5ad(
        folder / "treated.h5ad"
    )
    for name, level in (("dark", 60), ("bright", 170)):
        write_folder(folder / name, level)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

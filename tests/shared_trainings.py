"""What each of two processes does under torchrun: trainings together, and what they say of them. Run by test_shared."""

import os
import signal
import sys
from pathlib import Path

import torch
from lightning_fabric import Fabric
from test_training import make_batches, run, weights

from cellflow.errors import CheckpointError
from cellflow.objectives import VelocityMatching
from cellflow.training import EarlyStopping, Run
from cellflow.training.checkpoint import STATE


def recorded(into, act=lambda step: None, times=1.0):
    """The usual objective, which notes its losses, and does something in each step."""

    def objective(field, batch, *, generator):
        found = VelocityMatching()(field, batch, generator=generator)
        found = {name: value * times for name, value in found.items()}
        into.append(float(found["loss"]))
        act(len(into))
        return found

    return objective


def main(folder):
    torch.set_num_threads(1)
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
    fabric.launch()
    rank, found = fabric.global_rank, {}

    own, told = [], []
    whole, history = run(
        objective=recorded(own),
        steps=25,
        run=Run(fabric=fabric),
        on_step=lambda step, terms: told.append(terms["loss"]),
    )
    found |= {"own": own, "history": history.columns, "told": told, "weights": weights(whole)}

    stopping = EarlyStopping([next(iter(make_batches(seed=3)))], 5)
    _, history = run(steps=60, run=Run(fabric=fabric), stopping=stopping)
    found["stopping"] = history.columns

    for sender in (0, 1):  # a signal that only one of the processes gets
        place = folder / f"signal {sender}"

        def interrupt(step, sender=sender):
            if rank == sender and step == 7:
                os.kill(os.getpid(), signal.SIGTERM)

        try:
            run(objective=recorded([], interrupt), steps=25, run=Run(place, fabric=fabric))
        except KeyboardInterrupt as stop:
            found[f"signal {sender}"] = (str(stop), (place / STATE).exists())
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
    torch.save(found, folder / f"{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

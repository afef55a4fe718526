"""Run by ``others.py`` in the environment of otpfm, which has torch and NumPy but not this package."""

import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch


def model_of(dim: int, knots: list[float]) -> Any:
    """Return the model of otpfm's README, with the network of its command line's defaults."""
    from otpfm import OTPFM
    from otpfm.potentials import W2InfPotential

    potentials = OrderedDict()
    for before, t, after in zip(knots, knots[1:], knots[2:], strict=False):
        # Half the mean distance in time to both neighbours, which is what its "auto" means.
        width = (after - before) / 4
        potentials[t] = W2InfPotential(tk=t, strength=100.0, lambda_type="gaussian", width=width)
    network = {"hidden_dim": 256, "num_hidden_layers": 4}
    return OTPFM(d=dim, tks=knots[1:-1], potentials=potentials, flownet_args=network)


def fit(folder: Path, epochs: int, batch_size: int, seed: int) -> None:
    """Train on chains of cells, and keep the weights."""
    from otpfm import Curriculum

    torch.manual_seed(seed)
    data = np.load(folder / "fit.npz")
    chains, knots = torch.from_numpy(data["chains"]).float(), data["knots"].tolist()
    model = model_of(chains.shape[2], knots)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    each = max(1, len(chains) // batch_size)
    alpha = Curriculum(total_iterations=epochs * each)
    model.train()
    for epoch in range(epochs):
        order = torch.randperm(len(chains))
        for k in range(each):
            batch = chains[order[k * batch_size : (k + 1) * batch_size]]
            loss = model.forward_with_loss(batch, otp_alpha=alpha(epoch * each + k))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            model.update_ema()
    torch.save({"weights": model.state_dict(), "dim": chains.shape[2], "knots": knots}, folder / "model.pt")


def carry(folder: Path, steps: int = 100) -> None:
    """Carry cells by Euler steps along the model's velocity at equal times."""
    kept = torch.load(folder / "model.pt", weights_only=True)
    model = model_of(kept["dim"], kept["knots"])
    model.load_state_dict(kept["weights"])
    model.eval()
    data = np.load(folder / "carry.npz")
    x, (start, stop) = torch.from_numpy(data["x"]).float(), data["times"].tolist()
    with torch.no_grad():
        for k in range(steps):
            t = torch.full((len(x),), start + (stop - start) * k / steps)
            x = x + (stop - start) / steps * model.v_func_ema(x, t, t)
    np.save(folder / "carried.npy", x.numpy())


if __name__ == "__main__":
    torch.set_num_threads(1)
    task, where, *numbers = sys.argv[1:]
    if task == "fit":
        fit(Path(where), *map(int, numbers))
    else:
        carry(Path(where))

"""Run by ``others.py`` in the environment of cellflow-tools, whose import package has our name and is not this one."""

import sys
from pathlib import Path
from typing import Any

import numpy as np


def main(folder: Path, iterations: int, batch_size: int, seed: int) -> None:
    """Train on the cells that were seen, and predict what is asked, each by its untreated cells."""
    import anndata as ad
    import pandas as pd

    seen = np.load(folder / "seen.npz")
    parts, contexts = seen["parts"].astype(str), seen["context"].astype(str)  # "control" where there is no drug
    names, groups = sorted({*parts.ravel(), "control"}), sorted(set(contexts))
    one_hot = {"drug": np.eye(len(names)), "context": np.eye(len(groups))}

    def cells(x: np.ndarray, parts: np.ndarray, contexts: np.ndarray) -> Any:
        """Return cells with the columns that the package asks for."""
        columns = {f"drug{k + 1}": parts[:, k] for k in range(parts.shape[1])}
        obs = pd.DataFrame(columns | {"context": contexts, "is_control": (parts == "control").all(axis=1)})
        obs.index = obs.index.astype(str)
        for column in [*columns, "context"]:
            obs[column] = obs[column].astype("category")
        adata = ad.AnnData(x, obs=obs, obsm={"X_pca": x})
        adata.uns["drug"] = dict(zip(names, one_hot["drug"].astype(np.float32), strict=True))
        adata.uns["contexts"] = dict(zip(groups, one_hot["context"].astype(np.float32), strict=True))
        return adata

    model = fitted(cells(seen["x"], parts, contexts), parts.shape[1], len(groups), iterations, batch_size, seed)
    for k in range(int(seen["asks"])):
        ask = np.load(folder / f"ask{k}.npz")
        start, wanted, where = ask["x"], ask["parts"].astype(str), str(ask["context"])
        control = cells(start, np.full((len(start), len(wanted)), "control"), np.full(len(start), where))
        asked = cells(start[:1], wanted[None], np.array([where])).obs.assign(is_control=False, asked="asked")
        found = model.predict(
            adata=control, sample_rep="X_pca", condition_id_key="asked", covariate_data=asked.reset_index(drop=True)
        )
        np.save(folder / f"answer{k}.npy", np.asarray(found["asked"], dtype=np.float32))


def fitted(adata: Any, n_drugs: int, n_contexts: int, iterations: int, batch_size: int, seed: int) -> Any:
    """Return the trained model: the settings of its notebooks, every width an eighth of theirs, no accumulation."""
    from functools import partial

    import optax
    from cellflow.model import CellFlow
    from cellflow.utils import match_linear

    several = n_contexts > 1
    model: Any = CellFlow(adata, solver="otfm")
    model.prepare_data(
        sample_rep="X_pca",
        control_key="is_control",
        perturbation_covariates={"drugs": [f"drug{k + 1}" for k in range(n_drugs)]},
        perturbation_covariate_reps={"drugs": "drug"},
        sample_covariates=["context"] if several else None,
        sample_covariate_reps={"context": "contexts"} if several else None,
        split_covariates=["context"] if several else None,
        max_combination_length=n_drugs,
        null_value=0.0,
    )
    model.prepare_model(
        pooling="attention_token",
        condition_embedding_dim=32,
        cond_output_dropout=0.9,
        time_encoder_dims=[256, 256, 256],
        hidden_dims=[256, 256, 256],
        decoder_dims=[512, 512, 512],
        probability_path={"constant_noise": 0.5},
        match_fn=partial(match_linear, epsilon=0.5, tau_a=1.0, tau_b=1.0),
        optimizer=optax.adam(1e-3),
        seed=seed,
    )
    model.train(num_iterations=iterations, batch_size=batch_size, valid_freq=10 * iterations)
    return model


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:5]))

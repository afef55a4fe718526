"""What docs/migrate.md says: old spellings warn and do what the new ones do; former defaults are written as it says."""

import re
import warnings
from functools import partial
from pathlib import Path

import anndata
import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator
from test_readme import apart, blocks

import cellflow as cf
from cellflow.cli.former import modern_words

PAGE = (Path(__file__).parents[1] / "docs" / "migrate.md").read_text()
PYTHON, COMMANDS = (
    [re.findall(r"`([^`]+)`", line) for line in table.splitlines()]
    for table in re.findall(r"^\| 0\.1\.0 \| 0\.2\.0 \|\n\|[-|]+\|\n((?:\|.*\n)+)", PAGE, flags=re.MULTILINE)
)
SMALL = partial(cf.networks.MLP, width=4, depth=1)


@pytest.fixture(scope="module")
def fitted():
    """What the page's lines call: a flow with its map, a bridge, a translator of two clouds, a network."""
    adata = cf.datasets.branching(20, seed=0)
    settings = {"rep": "X_latent", "steps": 2, "batch_size": 8, "network": SMALL}
    noisy = {"path": cf.paths.BrownianBridge(0.5), "stochastic": True}
    twos, threes = torch.randn(2, 12, 2, generator=cf.generator(seed=0))
    return {
        "cf": cf,
        "adata": adata,
        "flow": cf.SnapshotFlow(**settings).fit(adata).distill(adata, steps=2),
        "bridge": cf.SnapshotFlow(**settings, **noisy).fit(adata),
        "model": cf.DomainTranslator(network=SMALL, steps=2, batch_size=4).fit(twos, threes),
        "twos": twos,
        "threes": threes,
        "x": torch.from_numpy(np.asarray(adata.obsm["X_latent"][:4])).float(),
        "field": cf.networks.MLP(dim=2, width=4, depth=1),
    }


def ask(code, names):
    """The value of a line, the cells that it wrote into, and what it warned of a former spelling."""
    own = apart(names)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = eval(code.replace("steps=500", "steps=2"), own)
    return found, own["adata"].uns, [str(each.message) for each in caught if each.category is FutureWarning]


def plain(found, written):
    """What can be compared of an answer."""
    if isinstance(found, BaseEstimator):
        weights = found.field_.state_dict() if hasattr(found, "field_") else {}
        return repr(found.get_params()), {name: weight.tolist() for name, weight in weights.items()}
    if isinstance(found, torch.nn.Module):
        return {name: tuple(weight.shape) for name, weight in found.state_dict().items()}
    if isinstance(found, anndata.AnnData):
        return found.obsm["X_latent"].tolist()
    if found is None:
        return written["trajectories"]["x"].tolist()
    return found if callable(found) else getattr(found, "x", found).tolist()


@pytest.mark.parametrize(("old", "new"), PYTHON)
def test_an_old_line_warns_and_does_what_the_new_one_does(old, new, fitted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before, wrote, warned = ask(old, fitted)
    assert any("is now" in message for message in warned), old
    for file in tmp_path.rglob("training.safetensors"):
        file.unlink()
    after, writes, silent = ask(new, fitted)
    assert silent == []
    assert plain(before, wrote) == plain(after, writes)


@pytest.mark.parametrize(("old", "new"), COMMANDS)
def test_an_old_setting_of_a_command_is_what_the_page_says(old, new):
    with pytest.warns(FutureWarning, match="is now"):
        assert modern_words([old]) == new.split()


def test_former_defaults_are_settings_of_today():
    names = {"cf": cf}
    (code,) = blocks(PAGE)
    exec(code, names)
    assert names["flow"].coupling == "exact"
    assert names["model"].regularize is False


def test_names_without_an_old_spelling_are_gone():
    (said,) = re.findall(r"^These have no old spelling.*?\n\n", PAGE, flags=re.DOTALL | re.MULTILINE)
    named = re.findall(r"`([a-z]+)\.(\w+)`", said)
    assert len(named) == 7
    for room, name in named:
        assert not hasattr(getattr(cf, room), name), name

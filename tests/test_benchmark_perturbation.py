"""The benchmark of treatments: published baselines again, no leak of a held-out cell, and scores of measured cells."""

from dataclasses import replace

import numpy as np
import pytest
from anndata import AnnData

import cellflow as cf
from benchmarks.perturbation import __main__ as command
from benchmarks.perturbation import scores, sets, table
from benchmarks.perturbation.baselines import BASELINES, additive, changes, mean_shift, no_change
from benchmarks.perturbation.folds import REP, Truth, folds_of
from benchmarks.perturbation.methods import METHODS, Flow, Translated
from benchmarks.perturbation.scores import HALF, Predicted, halves, score
from benchmarks.perturbation.table import TARGETS, means
from benchmarks.rows import Table

pytestmark = pytest.mark.usefixtures("global_state_is_untouched")


def over_folds(cells, *methods):
    """The mean scores of each method over all questions: of one fold after the other, each made once."""
    found = {method: [] for method in methods}
    for fold in folds_of(cells):
        for method, rows in found.items():
            if method == HALF:
                rows += [halves(truth, fold.space) for truth in fold.truths]
            else:
                answers = BASELINES[method](fold.seen, fold.asks, seed=0)
                rows += [score(answer, truth, fold.space) for answer, truth in zip(answers, fold.truths, strict=True)]
    return {
        method: {name: np.mean([row[name] for row in rows]) for name in rows[0] if rows[0][name] is not None}
        for method, rows in found.items()
    }


# --- numbers that were measured elsewhere --------------------------------------------------------------------------


def test_baselines_of_interferon_are_those_that_were_measured_elsewhere():
    found = over_folds(sets.load("kang"), "no change", "mean shift", HALF)
    assert found["mean shift"]["pearson"] == pytest.approx(0.7957, abs=5e-4)
    assert found["no change"]["energy"] == pytest.approx(6.8487, abs=5e-3)
    assert found["mean shift"]["energy"] == pytest.approx(3.094, abs=5e-3)
    assert found[HALF]["pearson"] == pytest.approx(0.9108, abs=0.01)  # halves are random
    assert found[HALF]["energy"] == pytest.approx(0.4967, abs=0.07)


def test_baselines_of_activated_genes_are_those_that_were_measured_elsewhere():
    cells = sets.load("norman")
    found = over_folds(cells, "additive", "mean shift", HALF)
    assert len(list(folds_of(cells))) == 5
    assert found["additive"]["pearson"] == pytest.approx(0.8699, abs=5e-4)
    assert found["mean shift"]["pearson"] == pytest.approx(0.1507, abs=5e-4)
    assert found[HALF]["pearson"] == pytest.approx(0.8938, abs=0.04)


def test_baselines_of_a_dose_are_those_that_were_measured_elsewhere(data_folder, monkeypatch):
    """The 213 genes of the list are 208 in the file; pairs of the midpoint and halves are drawn."""
    monkeypatch.setenv("CELLFLOW_DATA", str(data_folder))
    found = over_folds(sets.dose(), "no change", "copy of the nearest condition", "exact OT midpoint", HALF)
    assert found["no change"]["W1"] == pytest.approx(3.7595, abs=5e-3)
    assert found["copy of the nearest condition"]["W1"] == pytest.approx(2.0564, abs=5e-3)
    assert found["exact OT midpoint"]["W1"] == pytest.approx(2.0574, abs=0.03)
    assert found[HALF]["W1"] == pytest.approx(1.5533, abs=0.02)


def test_nothing_happens_to_untreated_cells_and_the_mean_shift_is_noise():
    found = over_folds(sets.load("null treatment"), "no change", "mean shift")
    still, moved = (row["energy"] for row in found.values())
    assert still == pytest.approx(0.24, abs=0.03)
    assert 1.05 * still < moved < 1.3 * still


# --- nothing leaks -------------------------------------------------------------------------------------------------


def toy(split="donor", **settings):
    law = cf.datasets.Perturbations(n_donors=3, n_genes=12)
    made = cf.datasets.perturbations(30, treatments=["A", "B", "A+B"], doses=[1.0, 2.0, 4.0], law=law)
    made.obs = made.obs.rename(columns={"drug": "treatment", "donor": "context"}).astype(
        {"treatment": str, "context": str}
    )
    given = {"dims": 5, "least": 10, "genes": 8} | settings
    return sets.Cells("toy", AnnData(made.X, obs=made.obs, var=made.var[[]]), split, **given)


def thrown(cells, fold):
    """The same cells, of which those that a fold holds out are thrown far away."""
    x, rows = cells.adata.X.copy(), ~cells.adata.obs_names.isin(fold.seen.obs_names)
    assert 0 < rows.sum() < len(rows)
    x[rows] = 3 * x[rows] + 100
    return replace(cells, adata=AnnData(x, obs=cells.adata.obs, var=cells.adata.var))


QUICK = {name: method for name, method in METHODS.items() if name in BASELINES} | {
    "translator": Translated({"steps": 3, "batch_size": 16, "device": "cpu"}),
    "flow": Flow({"steps": 3, "batch_size": 16, "device": "cpu"}),
}


@pytest.mark.parametrize("split", ["donor", "dose", "combination"])
def test_no_method_sees_a_held_out_cell(split):
    """Thrown far away they change nothing of what is seen, asked and answered; genes, components, scales included."""
    cells = toy(split, standardize=True)
    fold = next(iter(folds_of(cells)))
    again = next(iter(folds_of(thrown(cells, fold))))
    assert not set(fold.seen.obs_names) & set(cells.adata.obs_names[cells.adata.obs_names.isin([])])
    for one, two in [
        (fold.seen, again.seen),
        *((a.start, b.start) for a, b in zip(fold.asks, again.asks, strict=True)),
    ]:
        assert list(one.obs_names) == list(two.obs_names)
        assert list(one.var_names) == list(two.var_names)
        np.testing.assert_array_equal(one.X, two.X)
        np.testing.assert_array_equal(one.obsm[REP], two.obsm[REP])
        assert one.obs.equals(two.obs)
    for name, method in QUICK.items():
        answers = [method(each.seen.copy(), each.asks[:2], seed=1) for each in (fold, again)]
        for k, (one, two) in enumerate(zip(*answers, strict=True)):
            assert (one is None) == (two is None)
            if one is not None:
                np.testing.assert_array_equal(one.x, two.x, err_msg=name)
                near, far = (score(one, each.truths[k], each.space) for each in (fold, again))
                assert far["W1"] > 10 * near["W1"]


def test_held_out_cells_are_those_of_the_split_and_all_of_them():
    cells = toy("dose")
    folds = {fold.name: fold for fold in folds_of(cells)}
    assert list(folds) == ["1", "2"]  # 4 is the largest
    obs = cells.adata.obs
    for dose, fold in folds.items():
        held = set(obs.index) - set(fold.seen.obs_names)
        assert held == set(obs.index[(obs["dose"] == float(dose)) & (obs["treatment"] != "control")])
        assert len(fold.asks) == 9  # three donors, three treatments
        assert all(set(ask.start.obs_names) <= set(fold.seen.obs_names) for ask in fold.asks)
        for ask, truth in zip(fold.asks, fold.truths, strict=True):
            assert set(ask.start.obs["treatment"]) == {"control"}
            assert set(ask.start.obs["context"]) == {ask.context}
            assert len(truth.treated) == 30
    assert [fold.name for fold in folds_of(toy("combination"))] == ["A+B"]
    assert [fold.name for fold in folds_of(toy("donor"))] == ["donor0", "donor1", "donor2"]


def test_as_published_held_out_cells_change_only_genes_and_components():
    cells = toy(fit_on="all cells", genes=0)
    fold = next(iter(folds_of(cells)))
    again = next(iter(folds_of(thrown(cells, fold))))
    np.testing.assert_array_equal(fold.seen.X, again.seen.X)
    assert not np.allclose(fold.seen.obsm[REP], again.seen.obsm[REP])


# --- scores --------------------------------------------------------------------------------------------------------


def drawn(n=80, genes=60, seed=0):
    rng = np.random.default_rng(seed)
    control = rng.normal(size=(n, genes))
    treated = rng.normal(size=(n, genes)) + np.where(np.arange(genes) < 20, np.linspace(1, 3, genes), 0)
    return Truth(treated, control)


def space_of(truth, dims=10):
    from benchmarks.perturbation.folds import Space

    q = np.linalg.qr(np.random.default_rng(1).normal(size=(truth.control.shape[1], dims)))[0].T
    return Space(truth.control.mean(axis=0), np.ones(truth.control.shape[1]), q)


def test_what_a_method_says_of_untreated_cells_changes_no_score():
    """One that moves untreated cells, in what it was handed and in what it returns for them, is scored as another."""
    cells = toy()
    fold = next(iter(folds_of(cells)))

    def moving(seen, asks, *, seed):
        found = mean_shift(seen, asks, seed=seed)
        for ask in asks:  # it believes that they are elsewhere
            ask.start.X[:] += 50
            ask.start.obsm[REP][:] += 50
        seen.X[:] = 0
        return found

    expected = [
        score(answer, truth, fold.space)
        for answer, truth in zip(mean_shift(fold.seen, fold.asks, seed=0), fold.truths, strict=True)
    ]
    answers = moving(fold.seen, fold.asks, seed=0)
    found = [score(answer, truth, fold.space) for answer, truth in zip(answers, fold.truths, strict=True)]
    assert found == expected
    truth = fold.truths[0]
    other = Truth(truth.treated, truth.control + np.linspace(0, 5, truth.control.shape[1]))
    assert score(answers[0], other, fold.space)["pearson"] != expected[0]["pearson"]  # the measured ones do count


def test_scores_are_what_they_are_called():
    truth = drawn()
    space, right = space_of(truth), truth.treated.mean(axis=0) - truth.control.mean(axis=0)
    found = score(Predicted(truth.control + right, genes=True), truth, space)
    assert found["pearson"] == pytest.approx(1)
    assert found["right"] == found["changed"] >= 19
    wrong = score(Predicted(truth.control - right, genes=True), truth, space)
    assert wrong["pearson"] == wrong["pearson_top"] == pytest.approx(-1)
    assert wrong["right"] == 0
    still = score(Predicted(truth.control, genes=True), truth, space)
    assert still["pearson"] is None
    assert still["right"] == 0
    assert still["W1"] > found["W1"]
    same = score(Predicted(space.enter(truth.treated)), truth, space)
    assert (same["energy"], same["MMD"], same["W1"]) == pytest.approx((0, 0, 0), abs=1e-6)
    top = np.argsort(-np.abs(right))[:50]
    guess = right + np.random.default_rng(5).normal(size=60)
    guessed = score(Predicted(truth.control + guess, genes=True), truth, space)
    assert guessed["pearson_top"] == pytest.approx(np.corrcoef(guess[top], right[top])[0, 1], abs=1e-6)
    assert score(Predicted(np.full((3, 10), np.nan)), truth, space) == {"failed": "not finite"}


def test_cells_count_by_their_weight():
    truth = drawn()
    space = space_of(truth)
    both = np.concatenate([truth.treated, truth.control])
    weight = np.repeat([1.0, 0.0], [80, 80])
    one = score(Predicted(both, genes=True, weight=weight), truth, space)
    assert one["pearson"] == pytest.approx(1)
    assert one["W1"] == pytest.approx(0, abs=1e-6)


def test_a_change_of_components_is_scored_as_the_change_of_genes_that_it_is():
    truth = drawn()
    space = space_of(truth)
    moved = np.random.default_rng(3).normal(size=10)
    found = score(Predicted(space.enter(truth.control) + moved), truth, space)
    right = truth.treated.mean(axis=0) - truth.control.mean(axis=0)
    assert found["pearson"] == pytest.approx(np.corrcoef(moved @ space.components, right)[0, 1])


# --- baselines -----------------------------------------------------------------------------------------------------


def test_sums_and_doses_that_are_in_proportion_are_predicted_to_sampling_error():
    """The law is additive and linear in the dose: what is left is the noise of four means of 30 cells."""
    noise = 0.5 * np.sqrt(4 / 30)
    law = cf.datasets.Perturbations(n_donors=3, n_genes=12)
    for split in ("combination", "dose"):
        for fold in folds_of(toy(split, genes=0)):
            for ask, answer in zip(fold.asks, additive(fold.seen, fold.asks, seed=0), strict=True):
                change = answer.x.mean(axis=0) - ask.start.X.mean(axis=0)
                expected = law.shift(ask.treatment, ask.dose, int(ask.context[-1]))
                assert np.abs(change - expected).max() < 4 * noise


def test_every_baseline_answers_or_says_that_it_cannot():
    for split, silent in (("donor", {"copy of the nearest condition", "exact OT midpoint"}), ("dose", set())):
        fold = next(iter(folds_of(toy(split))))
        for name, method in BASELINES.items():
            answers = method(fold.seen, fold.asks, seed=0)
            assert len(answers) == len(fold.asks)
            unanswered = [ask for ask, answer in zip(fold.asks, answers, strict=True) if answer is None]
            if name == "exact OT midpoint":
                assert all("+" in ask.treatment for ask in unanswered) or name in silent
            else:
                assert bool(unanswered) == (name in silent), (split, name)
            assert all(np.isfinite(answer.x).all() for answer in answers if answer is not None)


def test_small_conditions_count_only_where_there_are_no_others():
    cells = toy()
    assert len(changes(cells.adata, least=30)) == 27
    cut = cells.adata[np.sort(np.random.default_rng(0).permutation(cells.adata.n_obs)[:500])]
    assert 0 < len(changes(cut, least=18)) < 27
    assert len(changes(cut, least=1000)) == 27


# --- sets ----------------------------------------------------------------------------------------------------------


FEW = [name for name in sets.SETS if not name.endswith("of the effect")] + ["kang, 0.25 of the effect"]


@pytest.mark.parametrize("name", FEW)
def test_every_set_asks_and_scores_cells_that_do_not_change(name, data_folder, monkeypatch):
    monkeypatch.setenv("CELLFLOW_DATA", str(data_folder))
    cells = sets.load(name)
    fold = next(iter(folds_of(cells)))
    answers = no_change(fold.seen, fold.asks, seed=0)
    found = [score(answer, truth, fold.space) for answer, truth in zip(answers, fold.truths, strict=True)]
    assert all(row["W1"] > 0 for row in found)
    if name == "nfkb":
        assert [ask.time for ask in fold.asks] == [3, 21, 90, 120]
        at = {ask.time: row["rank"] for ask, row in zip(fold.asks, found, strict=True)}
        assert at[120] != at[3]
        assert "track" not in fold.seen.obs


def test_parts_of_an_effect_are_between_nothing_and_all_of_it():
    found = [over_folds(sets.null(strength), "no change")["no change"]["energy"] for strength in (0.0, 1.0)]
    assert 5 * found[0] < found[1]


# --- the command ---------------------------------------------------------------------------------------------------


def test_a_file_of_the_user_is_measured_once_and_shown(tmp_path, capsys):
    law = cf.datasets.Perturbations(n_donors=3, n_genes=12)
    made = cf.datasets.perturbations(30, treatments=["A", "B"], law=law)
    made.obs["drug"] = made.obs["drug"].astype(str).replace("control", "DMSO")
    made.write_h5ad(tmp_path / "mine.h5ad")
    words = [f"path={tmp_path / 'mine.h5ad'}", f"out={tmp_path}", "treatment=drug", "control=DMSO", "context=donor",
             "split=donor", "dims=5", "least=10", "--method", "no change,mean shift"]  # fmt: skip
    command.main(words)
    rows = Table(tmp_path / "mine.csv", command.KEY).read()
    assert len(rows) == 3 * 2 * 3  # donors, drugs, and half against half beside two methods
    assert {row["fold"] for row in rows} == {"donor0", "donor1", "donor2"}
    page = (tmp_path / "mine.md").read_text()
    assert "| mean shift |" in page
    assert "## Targets" not in page
    capsys.readouterr()
    command.main(words)
    assert "'method'" not in capsys.readouterr().out  # nothing is measured again
    for wrong, message in (("context=cell", "cell"), ("control=water", "water"), ("treatment=", "treatment=COLUMN")):
        with pytest.raises(ValueError, match=message):
            command.main([*words, wrong])
    with pytest.raises(FileNotFoundError, match="nowhere"):
        command.main([*words, f"path={tmp_path / 'nowhere.h5ad'}"])


def test_the_page_tells_what_was_reached():
    values = {"no change": 1.0, "mean shift": 2.0, "PerturbationFlow": 1.05, HALF: 0.5}
    rows = [
        {"set": name, "method": method, "seed": 0} | dict.fromkeys(("pearson", "energy", "W1"), value)
        for name in dict.fromkeys(target.set for target in TARGETS)
        for method, value in values.items()
    ]
    lines = {tuple(line.split(" | ")[:2]): line for line in table.text(rows, "here") if line.startswith("| ")}
    flow = "| 1 | 2 | 1 (no change) |  | 1.05 (PerturbationFlow) | 0.5 |"
    assert lines["| null treatment", "energy distance"].endswith(f"{flow} <= 1.1 x no change | yes |")
    assert lines["| mcf10a time, day 3", "W1"].endswith(f"{flow} below every baseline | no |")
    assert lines["| kang", "energy distance"].endswith("<= .95 | no |")
    assert lines["| norman", "Pearson of the change"].endswith(">= .875 | yes |")
    assert {target.set for target in TARGETS} <= set(sets.SETS)
    assert means([{"seed": 0, "W1": 1.0}, {"seed": 0, "W1": 3.0}, {"seed": 1, "W1": 5.0}], "W1") == [2.0, 5.0]
    assert means([{"seed": 0, "W1": 1.0}, {"seed": 0, "W1": None}], "W1") == []


def test_a_peer_that_is_absent_is_skipped_by_name(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CELLFLOW_TOOLS_PYTHON", str(tmp_path / "python"))
    fold = next(iter(folds_of(replace(toy(), adata=toy().adata[toy().adata.obs["dose"] <= 1].copy()))))
    del fold.seen.obs["dose"]
    rows = command.rows_of(Table(tmp_path / "rows.csv", command.KEY), "toy", fold, ["cellflow-tools"], 1)
    assert {row["method"] for row in rows} == {HALF}
    assert "skipped cellflow-tools" in capsys.readouterr().out


def test_other_settings_of_a_flow_are_another_row():
    assert repr(Flow({"steps": 5})) != repr(Flow())
    assert repr(Translated({"steps": 5})) != repr(Translated()) == repr(Translated({"steps": 3000}))
    assert not scores.TOP % 50

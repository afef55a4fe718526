"""Training a `DomainTranslator` further on its own pairs."""

from typing import TYPE_CHECKING, Any

from cellflow import paths, training
from cellflow.estimators.base import FOLLOWED, REFINING
from cellflow.estimators.conditional_domains import both_ends
from cellflow.estimators.domains import Domain, Samples
from cellflow.integrate import Noisy
from cellflow.renamed import renamed
from cellflow.seeds import generator_at
from cellflow.signature import checked_but
from cellflow.training import MarkovianFitting, ModelCoupling, Reflow, Run
from cellflow.training.recipe import check_settings
from cellflow.training.refit import OLD_REFITTING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from cellflow.estimators.conditional_domains import Conditioned
    from cellflow.estimators.translation import DomainTranslator

OF_IMAGES = Noisy(50, power=2.0, denoise=True)
"""How bridges between images make pairs, see ``benchmarks/results/bridge_heads.md``."""


@checked_but("coupling", "rounds", "steps")
def refine(
    self: "DomainTranslator",
    source: Samples,
    target: Samples,
    *,
    rounds: int,
    steps: int | None = None,
    coupling: ModelCoupling | None = None,
    run: Run | None = None,
    **old: Any,
) -> "DomainTranslator":
    """Train a fitted flow further on its own pairs.

    Parameters
    ----------
    source, target
        The samples of the fit. Images in files are all read into memory: pass a part of them, by `take`. With
        conditions, as many pairs as there are samples on the larger side are carried, for images at most 4096.
    rounds
        Number of rounds.
    steps
        Training steps per round; ``None`` for as many as the fit.
    coupling
        How pairs are made; ``None`` for `cellflow.training.MarkovianFitting` if there is a score (DSBM),
        otherwise for `cellflow.training.Reflow`, after which few solver steps suffice on the linear path. Pairs of
        images must not keep noise of the simulation, which the model would learn: for them the default solver is
        ``cellflow.integrate.Noisy(50, power=2, denoise=True)``. Bridges that learned little before this become worse.
    run
        As for `cellflow.training.refit`. If it fails, this translator is unchanged.

    Raises
    ------
    NotFittedError
        Before ``fit``.
    ValueError
        When the samples are not those of the fit, or ``rounds`` is below 1.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> x = torch.randn(50, 2, generator=cf.generator(seed=0))
    >>> model = cf.DomainTranslator(steps=20).fit(x, x + 3)
    >>> len(model.refine(x, x + 3, rounds=2, steps=5).history_)
    30
    """
    coupling = renamed("DomainTranslator.refine", old, OLD_REFITTING).get("coupling", coupling)
    if isinstance(coupling, MarkovianFitting):
        _check_bridge(self, coupling)
    refined, domains = self._fitted_on(source, target, run)
    known = self._conditioned(source, target, domains, self.conditions_)
    steps, path = self.steps if steps is None else steps, paths.resolve(self.path)
    check_settings(steps, self.batch_size, self.recipe)
    rng, solver = generator_at(int(self.seed), REFINING), OF_IMAGES if len(self.shape_) == 3 else Noisy()
    x0, x1, condition = ends(self, domains, known, rng)
    found = training.refit(
        refined.field_,
        self._objective(unit=self.unit_),
        x0,
        x1,
        coupling=coupling or (MarkovianFitting(path.sigma, solver=solver) if self.stochastic else Reflow()),
        rounds=rounds,
        steps=steps,
        generator=rng,
        batch_size=self.batch_size,
        at_once=self.batch_size,
        recipe=self.recipe,
        condition=condition,
        run=refined._run(run),
        about=self._about(self._digests(domains, known)),
    )
    refined.history_ = sum(found, self.history_)
    return self._become(refined)


def _check_bridge(flow: "DomainTranslator", coupling: MarkovianFitting) -> None:
    """Refuse pairs of a bridge that the flow is not."""
    sigma = paths.resolve(flow.path).sigma
    if not flow.stochastic:
        raise ValueError(f"{coupling} is for bridges. Fit with stochastic=True on a path with noise, or take Reflow().")
    if coupling.sigma != sigma:
        raise ValueError(f"Expected pairs by the noise of the path, sigma={sigma:g}; found {coupling}.")


def ends(
    flow: "DomainTranslator", domains: tuple[Domain, Domain], known: "Conditioned | None", generator: "torch.Generator"
) -> tuple["Tensor", "Tensor", "Tensor | None"]:
    """Return the samples of both domains that a model carries; with conditions equally many of each, and these."""
    if known is None:
        return domains[0].scaled(), domains[1].scaled(), None
    n = max(map(len, domains))
    return both_ends(flow._pair(*domains, None, generator, known), n if len(flow.shape_) == 1 else min(n, FOLLOWED))

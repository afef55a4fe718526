"""Domains: images or vectors, read into one form, and returned in the form in which they were given."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias, Union, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cellflow.cells.columns import read_groups
from cellflow.cells.decoders import Decoder
from cellflow.cells.decoding import about_genes, var_of
from cellflow.cells.loadings import Loadings
from cellflow.cells.snapshots import read_rep
from cellflow.cells.states import StatesLike, as_states
from cellflow.couplings import CouplingLike, resolve
from cellflow.estimators.fields import Scales, blank
from cellflow.estimators.pixel_levels import as_images as in_levels
from cellflow.images.labels import named_labels
from cellflow.images.levels import Levels
from cellflow.images.pixels import to_bytes
from cellflow.images.sets import Images, ImageSet
from cellflow.images.streams import ImageStream
from cellflow.metrics import feature_network
from cellflow.pairing import ImageBatches, aside
from cellflow.pairing.features import Features
from cellflow.shapes import in_precision
from cellflow.training.search import Parts

if TYPE_CHECKING:
    from anndata import AnnData

Samples: TypeAlias = Union[ImageSet, ImageStream, "AnnData", StatesLike]
"""Forms in which a domain can be given."""


@dataclass(frozen=True, eq=False)
class Points:
    """Numbers other than bytes, ``(n, d)`` or ``(n, c, h, w)``, with the interface of a set of images.

    Parameters
    ----------
    x
        The numbers.
    labels
        The class of each ``(n,)``.
    classes
        The names of the classes.
    """

    x: Tensor
    labels: Tensor | None = None
    classes: tuple[str, ...] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one."""
        return tuple(self.x.shape[1:])

    @property
    def device(self) -> torch.device:
        """Device of the numbers."""
        return self.x.device

    def __len__(self) -> int:
        return len(self.x)

    def scaled(self, indices: Tensor | Sequence[int] | None = None) -> Tensor:
        """Return some, or all, as they are."""
        return self.x if indices is None else self.x[torch.as_tensor(indices, device=self.device)]

    def one_hot(self, indices: Tensor | None = None) -> Tensor:
        """Return the classes of some, or all, as a condition ``(n, k)``."""
        if self.labels is None:
            raise ValueError("These samples have no labels.")
        labels = self.labels if indices is None else self.labels[indices.to(self.device)]
        return torch.nn.functional.one_hot(labels, len(self.classes or ())).float()

    def take(self, chosen: Tensor) -> "Points":
        """Return some of them, a mask ``(n,)``."""
        return replace(self, x=self.x[chosen], labels=None if self.labels is None else self.labels[chosen])

    def to(self, device: torch.device) -> "Points":
        """Return the same on another device."""
        labels = None if self.labels is None else self.labels.to(device)
        return replace(self, x=self.x.to(device), labels=labels)


Domain: TypeAlias = ImageSet | ImageStream | Points
"""The one form."""


def read_domain(given: Samples, *, rep: str, group: str | None = None, what: str = "`x`") -> Domain:
    """Return images as they are; everything else as a set of bytes, or of numbers in single precision.

    Parameters
    ----------
    given
        Images; states ``(n, d)`` or ``(n, c, h, w)`` in any form of `cellflow.cells.as_states`; or cells.
    rep
        Key of the representation of cells in ``obsm``, or ``"X"``.
    group
        Column of ``obs`` with the class of each cell.
    what
        Name of the argument in messages.

    Raises
    ------
    TypeError, ValueError, KeyError
        When it is none of these, or holds numbers that are not finite.

    Examples
    --------
    >>> import torch
    >>> read_domain(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), rep="X")
    ImageSet(4 images, 3 x 8 x 8)
    >>> read_domain(torch.zeros(4, 2), rep="X").shape
    (2,)
    """
    if isinstance(given, ImageSet | ImageStream):
        return given
    if hasattr(given, "obsm"):
        return _from_cells(cast("AnnData", given), rep, group)
    if isinstance(given, str | os.PathLike):
        raise TypeError(f"Expected samples in {what}; found a name. A folder is read by `cf.images.read_images`.")
    values = as_states(given, what=what)
    if values.ndim not in (2, 4) or not values.numel():
        raise ValueError(
            f"Expected vectors (n, d) or images (n, c, h, w) in {what}; found shape {tuple(values.shape)}. "
            "`cf.images.read_images` takes other forms of images."
        )
    if values.dtype == torch.uint8 and values.ndim == 4:
        return ImageSet(values)
    if not (values.is_floating_point() or values.ndim == 2):
        raise TypeError(f"Expected images in {what} as bytes (uint8) or floating-point numbers; found {values.dtype}.")
    return Points(in_precision(values, torch.empty((), dtype=torch.float32, device=values.device), what=what))


def read_both(
    source: Samples, target: Samples, *, rep: str, group: str | None, device: torch.device
) -> tuple[Domain, Domain]:
    """Return both domains on a device, after checking that a flow can connect them.

    Raises
    ------
    ValueError
        When only one holds bytes, shapes differ, or there are too few samples.

    Examples
    --------
    >>> import torch
    >>> x0, x1 = read_both(torch.zeros(3, 2), torch.ones(4, 2), rep="X", group=None, device=torch.device("cpu"))
    >>> len(x0), len(x1)
    (3, 4)
    """
    x0, x1 = (
        read_domain(side, rep=rep, group=group, what=what).to(device)
        for side, what in ((source, "`source`"), (target, "`target`"))
    )
    for name, domain in (("source", x0), ("target", x1)):
        if len(domain) < 2:
            raise ValueError(f"Expected at least two {name} samples; found {len(domain)}: nothing can be learned.")
    if isinstance(x0, Points) != isinstance(x1, Points):
        raise ValueError("Expected both domains as images (bytes), or both as other numbers; found one of each.")
    if isinstance(x0, Points) and isinstance(x1, Points):
        if x0.shape != x1.shape:
            raise ValueError(f"Expected samples of one shape in both domains; found {x0.shape} and {x1.shape}.")
        if torch.equal(x0.x, x1.x):
            raise ValueError("Source and target are the same samples. Give two domains.")
    return x0, x1


def given_back(
    states: Tensor,
    given: Samples,
    *,
    rep: str,
    keep_labels: bool,
    levels: Levels | None = None,
    decoder: Loadings | Decoder | None = None,
) -> Any:
    """Return states ``(n, ...)`` in the form of the samples that they were carried from.

    Images keep their names and ``obs``, and labels if requested, and get ``levels``, or keep their own; cells keep
    ``obs``, in a new AnnData, with genes if there is a decoder; a tensor is returned as a tensor, a data frame with its
    index and columns, everything else as an array.
    """
    if isinstance(given, ImageSet | ImageStream):
        labels, classes = (given.labels, given.classes) if keep_labels else (None, None)
        labels = None if labels is None else labels.cpu()
        levels = levels or given.levels
        return ImageSet(in_levels(states, levels), labels, given.names, classes, obs=given.obs, levels=levels)
    if hasattr(given, "obsm"):
        return _cells(states, cast("AnnData", given), rep, decoder)
    read = as_states(given, what="`x`")
    values = to_bytes(states) if read.dtype == torch.uint8 and states.ndim == 4 else states
    if read.is_floating_point():
        values = values.to(read.dtype)
    if isinstance(given, Tensor):
        return values.to(given.device)
    if isinstance(given, pd.DataFrame):
        return pd.DataFrame(values.numpy(), index=given.index, columns=given.columns)
    return values.numpy()


def digest(domain: Domain) -> str:
    """Return a fingerprint of the samples and their order; for files that are not read, of their names and sizes.

    Examples
    --------
    >>> import torch
    >>> digest(Points(torch.zeros(2, 2))) == digest(Points(torch.ones(2, 2)))
    False
    """
    found = hashlib.sha256()
    if isinstance(domain, ImageStream):
        for path in domain.paths:
            found.update(f"{path.name} {path.stat().st_size}\n".encode())
        if domain.levels is not None:
            found.update(repr(domain.levels).encode())
    else:
        values = domain.images if isinstance(domain, ImageSet) else domain.x
        found.update(values.cpu().contiguous().numpy().tobytes())
    if domain.labels is not None:
        found.update(domain.labels.cpu().numpy().tobytes())
    return found.hexdigest()[:16]


def scales_of(x0: Domain, x1: Domain) -> Scales:
    """Return the scales of vectors, in double precision; ones for images, which have none of their own.

    Examples
    --------
    >>> import torch
    >>> scales_of(Points(torch.zeros(2, 1)), Points(torch.full((2, 1), 4.0))).shift
    tensor([2.])
    """
    if len(x0.shape) != 1:
        return blank(x0.shape[0])
    both = torch.cat([x0.scaled(), x1.scaled()]).cpu().double()
    scale = both.std(dim=0, correction=0).float()
    return Scales(both.mean(dim=0).float(), scale, scale, 1.0)


def some_of(domain: Domain, most: int) -> Tensor:
    """Return samples from all over a domain, as floating-point numbers: all of them, or at most so many.

    Examples
    --------
    >>> some_of(Points(torch.arange(10.0)[:, None]), 5).flatten()
    tensor([0., 2., 4., 6., 8.])
    """
    return domain.scaled(torch.arange(0, len(domain), -(-len(domain) // most)))


def digests(source: Domain, target: Domain) -> dict[str, str]:
    """Return the fingerprints of both domains."""
    return {"source": digest(source), "target": digest(target)}


def feature_space(features: int | str | None, domain: Domain) -> Features | None:
    """Return the space that a setting names."""
    if not isinstance(features, str):
        return features
    if len(domain.shape) == 1:
        raise ValueError(f"The features {features!r} are for images; leave out `features`, or give a number.")
    return feature_network(features).to(domain.device)


def regular(regularize: bool | str, coupling: CouplingLike, domains: tuple[Domain, Domain], given: object) -> bool:
    """Return whether memorising the vectors should be prevented; never so for images, or with a feature space."""
    few = aside.is_few(regularize, sum(map(len, domains)))
    vectors = all(isinstance(domain, Points) and len(domain.shape) == 1 for domain in domains)
    return few and vectors and resolve(coupling).divisible and not isinstance(given, tuple)


def hold_out(
    x0: Domain, x1: Domain, pair: Callable[[Domain, Domain], ImageBatches], generator: torch.Generator
) -> Parts | None:
    """Split the vectors of both domains, and of every class, into those that a search sees and those that it does not.

    Returns ``None`` if there are too few, see `cellflow.pairing.aside.held_out`, or a part has no plan.
    """
    both = [domain for domain in (x0, x1) if isinstance(domain, Points)]
    groups = [np.zeros(len(one)) if one.labels is None else one.labels.cpu().numpy() for one in both]
    masks = aside.held_out(groups, generator=generator)
    if masks is None:
        return None
    held = [torch.from_numpy(mask).to(one.device) for one, mask in zip(both, masks, strict=True)]
    kept = [~mask for mask in held]

    def parts() -> Parts:
        seen, out = ([one.take(chosen) for one, chosen in zip(both, masks, strict=True)] for masks in (kept, held))
        return Parts(pair(*seen), pair(*out))

    return aside.divided(parts, what="samples")


def as_images(domain: Domain) -> Images:
    """Return the domain for `image_batches`, which does not depend on the number of axes of a sample."""
    return cast("Images", domain)


def _from_cells(adata: "AnnData", rep: str, group: str | None) -> Points:
    x = torch.from_numpy(read_rep(adata, rep))
    if group is None:
        return Points(x)
    labels, classes = named_labels(read_groups(adata, group, setting="within_labels"))
    return Points(x, labels, classes)


def _cells(states: Tensor, adata: "AnnData", rep: str, decoder: Loadings | Decoder | None) -> "AnnData":
    import anndata

    x, obs = states.numpy(), adata.obs.copy()
    if rep == "X":
        return anndata.AnnData(X=x, obs=obs, var=adata.var.copy())
    if decoder is None:
        return anndata.AnnData(obs=obs, obsm={rep: x})
    uns = {"translation": {"rep": rep, **about_genes(adata, decoder)}}
    return anndata.AnnData(X=decoder.decode(x), obs=obs, var=var_of(adata, decoder), obsm={rep: x}, uns=uns)

"""Fields larger than the images that a translator knows: carried by tiles, and blended."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from cellflow.images.sets import ImageSet
from cellflow.images.tiles import blended, continued, cut

if TYPE_CHECKING:
    from cellflow.estimators.translation import DomainTranslator


def by_tiles(flow: "DomainTranslator", fields: Any, overlap: int, **how: Any) -> ImageSet:
    """Carry fields tile by tile: one field after the other, so that memory is that of one.

    Parameters
    ----------
    flow
        A fitted translator of images.
    fields
        Images of any size. Images smaller than a tile are padded by repeating their last row and column.
    overlap
        Pixels that neighbouring tiles share.
    **how
        The other arguments of `cellflow.DomainTranslator.translate`.

    Raises
    ------
    NotFittedError
        Before ``fit``.
    TypeError
        When they are not a set of images.
    ValueError
        When they have other channels, or the overlap is no smaller than a tile.
    """
    flow._check_fitted()
    if not isinstance(fields, ImageSet):
        found = type(fields).__name__
        raise TypeError(f"Expected fields as a set of images; found {found}. See `cf.images.read_images`.")
    if len(flow.shape_) != 3 or fields.shape[0] != flow.shape_[0]:
        raise ValueError(f"Expected fields with the channels of the fit, {flow.shape_[0]}; found {fields.shape[0]}.")
    made = [_one(flow, fields.take([number]), overlap, how) for number in range(len(fields))]
    labels = None if made[0].labels is None else fields.labels
    known: dict[str, Any] = {"names": fields.names, "labels": labels, "obs": _rows(fields, made)}
    return replace(made[0], images=torch.cat([one.images for one in made]), **known)


def _one(flow: "DomainTranslator", field: ImageSet, overlap: int, how: dict[str, Any]) -> ImageSet:
    """Return one field."""
    size = flow.shape_[1], flow.shape_[2]
    whole = continued(field.images[0].cpu(), size)
    tiles, places = cut(whole, size, overlap=overlap)
    rows = torch.zeros(len(tiles), dtype=torch.long)
    obs = None if field.obs is None else field.obs.iloc[rows.numpy()]
    labels = None if field.labels is None else field.labels.cpu()[rows]
    made: ImageSet = flow.translate(replace(field, images=tiles, names=None, obs=obs, labels=labels), **how)
    joined = blended(made.images.float(), places, (whole.shape[1], whole.shape[2])).round().to(made.images.dtype)
    return replace(made.take([0]), images=joined[None, :, : field.shape[1], : field.shape[2]].contiguous())


def _rows(fields: ImageSet, made: list[ImageSet]) -> Any:
    """Return what is known of the fields, as it is known of what was made of them."""
    if made[0].obs is None:
        return fields.obs
    import pandas as pd

    obs = pd.concat([one.obs for one in made])
    return obs.reset_index(drop=True) if fields.obs is None else obs  # the requested condition alone

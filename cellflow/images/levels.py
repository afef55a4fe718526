"""What the numbers of a camera mean: which of them is black, which is white, and how they are kept."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cellflow.shapes import check_dense
from cellflow.signature import checked

STEPS = 65535
"""The white of 16 bits."""
KINDS = {"uint8": 255, "uint16": STEPS, "float32": None}
"""Kinds of numbers that are written, and the largest of each."""
NARROW = 0.1
"""Images that use a smaller part of their range than this are warned of: a flow would hardly see them."""
COUNTED = 2_000_000
"""Most pixels of a channel from which percentiles are taken."""


@checked
@dataclass(frozen=True)
class Levels:
    """The range of the numbers of images, channel by channel: what is black, -1 for a flow, and what is white, +1.

    Images with levels are stored in 16 bits and written as they came: camera counts survive. In a translation each
    domain keeps its own levels.

    Parameters
    ----------
    low, high
        The values of black and white for each channel. Values outside are clipped.
    kind
        Number type in which images are written: ``"uint8"``, ``"uint16"`` or ``"float32"``.
    channels
        The names of the channels, such as ``("DAPI", "GFP")``.

    Raises
    ------
    ValueError
        When a white is not above its black, a number is not finite, or lengths differ.

    Examples
    --------
    >>> import torch
    >>> camera = Levels((0.0,), (4095.0,), channels=("DAPI",))  # of 12 bits
    >>> steps = camera.steps(torch.tensor([0.0, 4095.0, 5000.0]).reshape(3, 1, 1, 1))
    >>> steps.flatten().tolist()
    [0, 65535, 65535]
    >>> camera.numbers(torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1)).ravel().tolist()
    [0, 4095]
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    kind: str = "uint16"
    channels: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not self.low or len(self.low) != len(self.high):
            raise ValueError(f"Expected a black and a white for each channel; found {self.low} and {self.high}.")
        if not all(np.isfinite(both).all() and both[0] < both[1] for both in zip(self.low, self.high, strict=True)):
            raise ValueError(f"Expected each white above its black, both finite; found {self.low} and {self.high}.")
        if self.kind not in KINDS:
            raise ValueError(f"Expected the kind of numbers as one of {', '.join(KINDS)}; found {self.kind!r}.")
        if self.channels is not None and len(self.channels) != len(self.low):
            raise ValueError(f"Expected a name for each of {len(self.low)} channels; found {self.channels}.")

    @checked
    def steps(self, values: Tensor) -> Tensor:
        """Return camera counts ``(n, c, h, w)`` as 16 bits from black to white, of type ``uint16``."""
        low, high = (torch.tensor(side, dtype=torch.float64).reshape(-1, 1, 1) for side in (self.low, self.high))
        self._check(values)
        shares = [(part.double() - low) / (high - low) for part in values.split(1)]  # one at a time: they are large
        return torch.cat([(part.clamp(0, 1) * STEPS).round().to(torch.uint16) for part in shares])

    @checked
    def numbers(self, x: Tensor) -> np.ndarray:
        """Return pixels from -1 to 1, ``(n, c, h, w)``, as camera counts of type ``kind``.

        Values outside -1 to 1 are clipped, unless written as floats.
        """
        self._check(x)
        most = KINDS[self.kind]
        share = (x.detach().cpu().double().numpy() + 1) / 2
        low, high = (np.array(side).reshape(-1, 1, 1) for side in (self.low, self.high))
        values = low + (share if most is None else share.clip(0, 1)) * (high - low)
        whole = values if most is None else values.round().clip(0, most)
        return np.asarray(whole, dtype=self.kind)

    def record(self) -> dict[str, Any]:
        """Return it as JSON."""
        names = None if self.channels is None else list(self.channels)
        return {"low": list(self.low), "high": list(self.high), "kind": self.kind, "channels": names}

    @classmethod
    def of(cls, record: Mapping[str, Any] | None) -> "Levels | None":
        """Return what was recorded, if anything.

        Examples
        --------
        >>> Levels.of(Levels((0.0,), (1.0,)).record()) == Levels((0.0,), (1.0,))
        True
        """
        if record is None:
            return None
        names = record.get("channels")
        low, high = (tuple(map(float, record[side])) for side in ("low", "high"))
        return cls(low, high, record["kind"], None if names is None else tuple(names))

    def _check(self, values: Tensor) -> None:
        check_dense(values, what="the pixels")
        if values.ndim != 4 or values.shape[1] != len(self.low):
            raise ValueError(f"Expected pixels (n, {len(self.low)}, h, w); found shape {tuple(values.shape)}.")
        if values.is_floating_point() and not bool(torch.isfinite(values).all()):
            raise ValueError("Expected finite pixels; found NaN or infinity. Fix or leave out these images.")


def check_percentiles(percentiles: tuple[float, float]) -> None:
    """Refuse what is not two ascending percentages, and fractions in their place.

    Raises
    ------
    ValueError
        With what was meant, if it can be told.

    Examples
    --------
    >>> check_percentiles((0.001, 0.999))
    Traceback (most recent call last):
    ...
    ValueError: Expected `percentiles` in per cent; found fractions, (0.001, 0.999). Set `percentiles=(0.1, 99.9)`.
    """
    first, last = percentiles
    if not 0 <= first < last <= 100:
        raise ValueError(f"Expected `percentiles` as two ascending numbers from 0 to 100; found {percentiles}.")
    if last <= 1:  # all but the darkest hundredth would be white
        raise ValueError(
            f"Expected `percentiles` in per cent; found fractions, {percentiles}. Set "
            f"`percentiles=({100 * first:g}, {100 * last:g})`."
        )


def check_range(
    white_level: float | None, levels: Levels | None = None, percentiles: tuple[float, float] | None = None
) -> None:
    """Refuse a range of numbers that is given twice, and percentiles that are not percentages.

    Raises
    ------
    ValueError
        Naming both.

    Examples
    --------
    >>> check_range(4095, percentiles=(0.1, 99.9))
    Traceback (most recent call last):
    ...
    ValueError: Give `white_level` or `percentiles`, not both: each says what is black and what is white.
    """
    stated = {
        "white_level": white_level not in (None, STEPS),  # 65535 was the default: older runs have it
        "levels": levels is not None,
        "percentiles": percentiles is not None,
    }
    given = [name for name, there in stated.items() if there]
    if len(given) > 1:
        raise ValueError(f"Give `{given[0]}` or `{given[1]}`, not both: each says what is black and what is white.")
    if percentiles is not None:
        check_percentiles(percentiles)


def found_levels(
    images: Sequence[Tensor],
    *,
    percentiles: tuple[float, float],
    kind: str = "uint16",
    channels: tuple[str, ...] | None = None,
) -> Levels:
    """Return the levels of each channel, from percentiles over all images.

    Parameters
    ----------
    images
        Camera counts, ``(c, h, w)`` each.
    percentiles
        The percentages of pixels below black and below white. If there are many pixels, evenly spaced ones are used.
    kind, channels
        As for `Levels`.

    Raises
    ------
    ValueError
        When they are not ascending percentages, or a channel has a single value between them.

    Examples
    --------
    >>> found_levels([torch.arange(101.0).reshape(1, 1, 101)], percentiles=(1, 99))
    Levels(low=(1.0,), high=(99.0,), kind='uint16', channels=None)
    """
    check_percentiles(percentiles)
    first, last = percentiles
    stride = max(1, sum(image[0].numel() for image in images) // COUNTED)
    both = []
    for channel in range(len(images[0])):
        values = np.concatenate([image[channel].flatten()[::stride].numpy() for image in images])
        low, high = np.percentile(values, (first, last))
        if not low < high:
            name = f"channel {channel}" if channels is None else channels[channel]
            raise ValueError(
                f"Expected images that vary in every channel; of {name} the percentiles {first:g} and {last:g} are "
                f"both {low:g}. Use wider `percentiles`, or leave the channel out."
            )
        both.append((float(low), float(high)))
    low_all, high_all = zip(*both, strict=True)
    return Levels(low_all, high_all, kind, channels)


def check_kind(levels: Levels, kinds: Collection[str], *, where: str) -> None:
    """Refuse images if none has the number type of these levels: they would be all black or all white.

    Raises
    ------
    ValueError
        With both kinds.

    Examples
    --------
    >>> check_kind(Levels((0.0,), (4095.0,)), ["uint8"], where="plates")
    Traceback (most recent call last):
    ...
    ValueError: Expected images of uint16 numbers in plates, whose levels are given; found uint8. Levels say what...
    """
    if levels.kind not in kinds:
        raise ValueError(
            f"Expected images of {levels.kind} numbers in {where}, whose levels are given; found "
            f"{' and '.join(sorted(kinds))}. Levels say what is black and white in one kind of numbers: give images as "
            "they came from the camera."
        )


def narrow(images: Sequence[Tensor], levels: Levels, *, where: str = "") -> str | None:
    """Say which channel uses less than a tenth of its range, and what to do; ``None`` if there is none.

    Parameters
    ----------
    images
        Camera counts, ``(c, h, w)`` each.
    levels
        Their range.
    where
        Where they come from.

    Examples
    --------
    >>> narrow([torch.tensor([0.0, 4095.0]).reshape(1, 1, 2)], Levels((0.0,), (65535.0,)), where="plates")
    'The images of plates use 6.2 % of their range: 0 to 4095 of 0 to 65535. Set `percentiles=(0.1, 99.9)`, or ...
    """
    ranges = [
        (min(float(image[channel].min()) for image in images), max(float(image[channel].max()) for image in images))
        for channel in range(len(levels.low))
    ]
    white = math.ceil(max(most for _, most in ranges))  # one for all channels
    for channel, ((least, most), low, high) in enumerate(zip(ranges, levels.low, levels.high, strict=True)):
        share = (most - least) / (high - low)
        if share < NARROW and most > least:
            of = where and f" of {where}"
            which = f"The images{of} use" if len(levels.low) == 1 else f"Channel {channel} of the images{of} uses"
            helps = levels.kind != "uint8" and 1 <= white < high and most - least >= NARROW * white
            # One setting may be for several sets, such as source and target: a number must suit all of them.
            level = f", or `white_level={white}` if other images that it is set for are no brighter" if helps else ""
            return (
                f"{which} {100 * share:.2g} % of {'their' if len(levels.low) == 1 else 'its'} range: {least:g} to "
                f"{most:g} of {low:g} to {high:g}. Set `percentiles=(0.1, 99.9)`{level}, so that a flow sees what is "
                "in them."
            )
    return None

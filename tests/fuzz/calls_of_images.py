"""Calls of what has images: sets, their pixels and features, scores of images, translation and generation."""

import contextlib
import tempfile
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import cellflow as cf
from fuzz.calls import (
    CLOUD,
    GENERATOR,
    IMAGES,
    Call,
    count,
    flag,
    forward,
    function,
    number,
    other,
    plain,
    tensor,
    text,
    using,
)
from fuzz.oddities import Argument

M = cf.metrics
SMALL = partial(cf.networks.UNet, width=8, multipliers=(1,), blocks=1)
PICTURES = Argument("tensor", lambda: (torch.rand(6, 1, 8, 8, generator=cf.generator(4)) * 255).byte())
NUMBERS = Argument("tensor", lambda: torch.tensor([0, 1, 0, 1, 0, 1]))

DOSES = pd.DataFrame({"dose": range(6)})


@cache
def folder() -> str:
    """Return a folder of four pictures in two classes, and of one file that is none."""
    from PIL import Image

    made = Path(tempfile.mkdtemp())
    for k, name in enumerate(["a", "a", "b", "b"]):
        (made / name).mkdir(exist_ok=True)
        Image.fromarray(np.full((8, 8), 60 * k, np.uint8)).save(made / name / f"{k}.png")
    return str(made)


def plate() -> pd.DataFrame:
    """Return a table of the pictures in that folder."""
    files = [path.relative_to(folder()).as_posix() for path in sorted(Path(folder()).rglob("*.png"))]
    return pd.DataFrame({"file": files, "drug": ["control", "control", "A", "A"], "dose": [0.0, 0.0, 1.0, 2.0]})


def pictures(**given: Any) -> cf.images.ImageSet:
    return cf.images.ImageSet(
        **({"images": PICTURES.make(), "labels": NUMBERS.make(), "classes": ("dark", "bright")} | given)
    )


def bright() -> cf.images.ImageSet:
    return pictures(images=255 - PICTURES.make())


def seen(images: Any) -> Any:
    return [images.scaled([0, 1]), images.labels, images.one_hot() if images.labels is not None else None, repr(images)]


def halves(images: torch.Tensor) -> torch.Tensor:
    return images.flatten(1)[:, :8]


@cache
def generator_fitted() -> cf.ImageGenerator:
    return cf.ImageGenerator(network=SMALL, steps=1, batch_size=4, device="cpu", conditional=True).fit(pictures())


@cache
def translator_fitted() -> cf.DomainTranslator:
    return cf.DomainTranslator(steps=1, batch_size=4, device="cpu").fit(CLOUD.make(), CLOUD.make() + 1)


@cache
def stochastic_translator() -> cf.DomainTranslator:
    path = cf.paths.BrownianBridge(0.5)
    return cf.DomainTranslator(steps=1, batch_size=4, device="cpu", stochastic=True, path=path).fit(
        CLOUD.make(), CLOUD.make() + 1
    )


def generated(images: Any = None, **given: Any) -> Any:
    model = cf.ImageGenerator(**({"network": SMALL, "steps": 1, "batch_size": 4, "device": "cpu"} | given))
    return model.fit(pictures() if images is None else images).generate(2, solver=1).images


def translated(**given: Any) -> Any:
    source, target = given.pop("source", CLOUD.make()), given.pop("target", CLOUD.make() + 1)
    model = cf.DomainTranslator(**({"steps": 1, "batch_size": 4, "device": "cpu"} | given))
    return model.fit(source, target).translate(CLOUD.make(), solver=1)


def drugged() -> cf.images.ImageSet:
    return pictures(obs=pd.DataFrame({"drug": ["A", "B"] * 3, "plate": [1, 1, 2, 2, 1, 2], "dose": [1.0, 2.0] * 3}))


TELLING = {"network": SMALL, "steps": 1, "batch_size": 4, "device": "cpu"}


@cache
def conditional_translator() -> cf.DomainTranslator:
    settings = {"conditions": cf.Conditions("drug", "dose"), "condition_dropout": 0.2}
    return cf.DomainTranslator(**settings, **TELLING).fit(pictures(images=bright().images), drugged())


@cache
def conditional_generator() -> cf.ImageGenerator:
    return cf.ImageGenerator(conditions="drug", **TELLING).fit(drugged())


def told_translation(**given: Any) -> Any:
    source = replace(drugged(), images=bright().images)
    model = cf.DomainTranslator(**(TELLING | given)).fit(source, drugged())
    condition = {"condition": {"drug": "A"}} if model.conditions_ is not None else {}
    return model.translate(source, **condition, solver=1).images


def told_generation(**given: Any) -> Any:
    return cf.ImageGenerator(**(TELLING | given)).fit(drugged()).generate(2, solver=1).images


def saved_elsewhere(model: Any) -> Any:
    def use(folder: Any, overwrite: Any) -> None:
        with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):  # a name is a folder here
            model().save(folder, overwrite=overwrite)

    return plain(use, folder=other(lambda: tempfile.mkdtemp()), overwrite=flag(True))


PAIRS = {"inputs": IMAGES, "outputs": Argument("tensor", lambda: IMAGES.make() / 2)}
SETTINGS = {
    "path": text("linear"),
    "coupling": text("independent"),
    "steps": count(1),
    "batch_size": count(4),
    "flip": flag(False),
    "seed": count(0),
    "device": text("cpu"),
    "progress": flag(False),
    "recipe": other(cf.training.Recipe()),
}
READING = {
    "size": count(8),
    "channels": count(1),
    "skip_unreadable": flag(True),
    "background": count(255),
    "white_level": count(255),
    "fit": text("pad"),
    "pages": text("max"),
    "percentiles": other(None),
    "levels": other(None),
    "table": other(None),
    "file_column": text("file"),
}

CALLS: dict[str, Any] = {
    "images.ImageSet": [
        using(
            cf.images.ImageSet,
            seen,
            images=PICTURES,
            labels=NUMBERS,
            names=other(None),
            classes=other(("dark", "bright")),
            source=text("here"),
            obs=other(None),
        ),
        using(
            cf.images.ImageSet,
            lambda images: seen(images.take([1, 0])),
            images=PICTURES,
            obs=other(lambda: DOSES),
        ),
        plain(
            lambda indices: seen(pictures().take(indices)), indices=Argument("tensor", lambda: torch.tensor([0, 2, 4]))
        ),
        plain(lambda indices: pictures().scaled(indices), indices=Argument("tensor", lambda: torch.tensor([0, 2]))),
        plain(lambda device: pictures().to(device), device=text("cpu")),
    ],
    "images.Conversion": using(
        cf.images.Conversion,
        lambda conversion: conversion,
        size=count(8),
        channels=count(1),
        background=count(255),
        white_level=count(255),
        fit=text("pad"),
        pages=text("max"),
    ),
    "images.Levels": [
        using(
            cf.images.Levels,
            lambda levels: levels.numbers(torch.zeros(1, 1, 2, 2)),
            low=other((0.0,)),
            high=other((4095.0,)),
            kind=text("uint16"),
            channels=other(("DAPI",)),
        ),
        plain(lambda values: cf.images.Levels((0.0,), (1.0,)).steps(values), values=IMAGES),
    ],
    "images.ImageStream": using(
        cf.images.ImageStream,
        seen,
        paths=other(lambda: tuple(sorted(Path(folder()).rglob("*.png")))),
        conversion=other(cf.images.Conversion(8, 1)),
        labels=other(None),
        obs=other(lambda: plate()),
    ),
    "images.read_images": [
        plain(lambda **given: seen(cf.images.read_images(**given)), source=PICTURES, labels=NUMBERS, **READING),
        plain(
            lambda **given: seen(cf.images.read_images(**given)),
            source=text(lambda: folder()),
            labels=text("folder"),
            **READING,
        ),
        plain(
            lambda **given: seen(cf.images.read_images(**given)),
            source=text(lambda: folder()),
            **READING | {"labels": text("drug"), "table": other(lambda: plate())},
        ),
    ],
    "images.stream_images": plain(
        lambda **given: seen(cf.images.stream_images(**given)),
        folder=text(lambda: folder()),
        labels=text("folder"),
        **READING | {"table": other(lambda: plate())},
    ),
    "images.scaled": forward(cf.images.scaled, images=PICTURES),
    "images.to_bytes": plain(cf.images.to_bytes, images=IMAGES),
    "networks.UNet": [
        using(
            lambda **given: cf.networks.UNet(**given),
            lambda network: network(torch.rand(2), torch.zeros(2, 1, 8, 8)),
            channels=count(1),
            width=count(8),
            multipliers=other((1, 2)),
            blocks=count(1),
            attention=other((1,)),
            head_dim=count(4),
            dropout=number(0.0),
            condition_dim=count(0),
            harmonics=count(2),
            heads=count(1),
            times=count(1),
        ),
        forward(lambda **given: SMALL(1)(**given), t=tensor(4), x=IMAGES, condition=other(None)),
    ],
    "networks.EndGuess": [
        using(
            cf.networks.EndGuess,
            lambda guess: guess(torch.full((2,), 0.5), torch.zeros(2, 1, 8, 8)),
            shape=other((1, 8, 8)),
            sigma=number(0.3),
        ),
        plain(lambda x0, x1: cf.networks.EndGuess((1, 12, 12), 0.3).measure(x0, x1).variance, x0=IMAGES, x1=IMAGES),
        forward(lambda **given: cf.networks.EndGuess((1, 12, 12), 0.3)(**given), t=tensor(4), x=IMAGES),
    ],
    "networks.VelocityGuess": [
        using(
            cf.networks.VelocityGuess,
            lambda guess: guess(torch.full((2,), 0.5), torch.zeros(2, 1, 8, 8)),
            shape=other((1, 8, 8)),
            sigma=number(0.3),
        ),
        plain(lambda x0, x1: cf.networks.VelocityGuess((1, 12, 12)).measure(x0, x1).variance, x0=IMAGES, x1=IMAGES),
        forward(lambda **given: cf.networks.VelocityGuess((1, 12, 12))(**given), t=tensor(4), x=IMAGES),
    ],
    "networks.GuessedVelocity": using(
        cf.networks.GuessedVelocity,
        lambda field: field,
        network=other(lambda: SMALL(1)),
        guess=other(lambda: cf.networks.VelocityGuess((1, 12, 12))),
    ),
    "networks.DiffusersField": using(
        cf.networks.DiffusersField, lambda field: field, network=other(lambda: SMALL(1)), time_scale=number(1000.0)
    ),
    "metrics.FeatureNetwork": using(
        M.FeatureNetwork, lambda network: list(network.parameters()), channels=count(1), classes=count(3)
    ),
    "metrics.feature_network": plain(
        lambda **given: M.feature_network(**given).classes, name=text("silhouettes"), weights=other(None)
    ),
    "metrics.features_of": plain(M.features_of, images=IMAGES, function=function(lambda: halves)),
    "metrics.feature_distance": plain(
        M.feature_distance,
        images=Argument("tensor", lambda: torch.rand(4, 1, 32, 32)),
        reference=Argument("tensor", lambda: torch.rand(5, 1, 32, 32)),
        network=function(lambda: M.feature_network("silhouettes")),
    ),
    "metrics.fid": plain(M.fid, images=PICTURES, real=PICTURES, weights=text("nowhere.pt"), reference=text("here")),
    "metrics.transport_cost": plain(M.transport_cost, **PAIRS),
    "metrics.structural_similarity": plain(M.structural_similarity, **PAIRS),
    "metrics.high_frequency_ratio": plain(M.high_frequency_ratio, images=IMAGES, real=PAIRS["outputs"]),
    "metrics.spoiled": plain(M.spoiled, images=IMAGES, generator=GENERATOR),
    "metrics.blind_to": plain(M.blind_to, real=number(1.0), controls=other(lambda: {"noise of 5": 0.5})),
    "metrics.mask_dice": plain(M.mask_dice, **PAIRS),
    "metrics.foreground": plain(M.foreground, images=IMAGES, dark=flag(False)),
    "metrics.target_accuracy": plain(
        M.target_accuracy, images=IMAGES, logits=function(lambda: halves), target=count(1)
    ),
    "metrics.against_shuffled": plain(
        M.against_shuffled, score=function(lambda: M.transport_cost), **PAIRS, generator=GENERATOR, repeats=count(3)
    ),
    "pairing.image_batches": plain(
        lambda **given: next(cf.pairing.image_batches(**given).iterate(0)),
        source=other(lambda: pictures()),
        target=other(lambda: bright()),
        coupling=text("exact"),
        batch_size=count(4),
        generator=GENERATOR,
        features=count(4),
        within_labels=flag(False),
        flip=flag(False),
        ot_batch_size=count(4),
        path=text("linear"),
    ),
    "ImageGenerator": [
        Call(
            generated,
            SETTINGS
            | {
                "conditional": flag(False),
                "condition_dropout": number(0.1),
                "autoencoder": other(None),
                "objective": text("velocity"),
                "guess": flag(False),
                "network": other(lambda: SMALL),
            },
        ),
        plain(lambda images: generated(cf.images.ImageSet(images)), images=PICTURES),
        plain(
            lambda images, labels: generated(cf.images.ImageSet(images, labels), conditional=True),
            images=PICTURES,
            labels=NUMBERS,
        ),
        plain(
            lambda **given: generator_fitted().generate(**given).images,
            n=count(2),
            label=count(1),
            solver=count(1),
            seed=count(0),
        ),
        plain(
            lambda **given: generator_fitted().trajectory(**given),
            n=count(2),
            label=count(1),
            solver=count(1),
            seed=count(0),
        ),
        saved_elsewhere(generator_fitted),
        plain(cf.ImageGenerator.load, folder=text("nowhere")),
        plain(told_generation, conditions=text("drug"), condition_dropout=number(0.2)),
        plain(
            lambda **given: conditional_generator().generate(2, **given).images,
            condition=other({"drug": "A"}),
            guidance=number(1.5),
            solver=count(1),
        ),
        plain(
            lambda **given: generator_fitted().translate(pictures(), **given).images,
            strength=number(0.5),
            keep=Argument("tensor", lambda: torch.eye(8) > 0),
            label=count(1),
            solver=count(2),
            seed=count(0),
        ),
    ],
    "DomainTranslator": [
        Call(
            translated,
            SETTINGS
            | {
                "features": other(None),
                "within_labels": flag(False),
                "stochastic": flag(False),
                "heads": text("shared"),
                "guess": flag(False),
                "network": text("mlp"),
                "rep": text("X_pca"),
                "regularize": flag(False),
                "ot_batch_size": count(4),
            },
        ),
        plain(translated, source=CLOUD, target=tensor(7, 2, seed=1)),
        plain(lambda **given: translator_fitted().translate(**given), x=CLOUD, solver=count(1)),
        plain(lambda **given: translator_fitted().trajectory(**given), x=CLOUD, solver=count(1)),
        plain(
            lambda **given: stochastic_translator().simulate(**given),
            x=CLOUD,
            solver=count(2),
            seed=count(0),
            strength=number(0.5),
        ),
        saved_elsewhere(translator_fitted),
        plain(cf.DomainTranslator.load, folder=text("nowhere")),
        plain(told_translation, conditions=text("drug"), within=text("plate"), condition_dropout=number(0.2)),
        plain(
            lambda **given: conditional_translator().translate(pictures(), **given).images,
            condition=other({"drug": "A", "dose": 1.5}),
            guidance=number(1.5),
            solver=count(1),
        ),
    ],
    "datasets.mnist": plain(cf.datasets.mnist, split=text("validation")),
    "datasets.fashion_mnist": plain(cf.datasets.fashion_mnist, split=text("validation")),
    "datasets.cifar10": plain(cf.datasets.cifar10, split=text("validation"), jpeg=flag(False)),
    "datasets.wortmannin": plain(cf.datasets.wortmannin, split=text("validation")),
    "datasets.nuclei": plain(cf.datasets.nuclei, kind=text("stars"), split=text("train"), masks=flag(False)),
}

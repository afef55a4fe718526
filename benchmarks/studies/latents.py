"""Pixels or latents at 128 pixels: ``python -m benchmarks.studies.latents``.

Fields of four real cells each, untreated to treated, with the network and the batches of the command line without a
GPU. A flow of pixels beside one of latents, for as many steps and for as long. Rows that are in the table already are
not made again. Needs the treated cells in ``$CELLFLOW_DATA``.
"""

import time
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

import cellflow as cf
from benchmarks import machine, page
from benchmarks.command import Words, guarded, options
from benchmarks.images.judge import FLOOR, Translated
from benchmarks.images.tasks import Direction, Sets, Task, overlap, resized
from benchmarks.images.wortmannin import SIDE as JUDGED
from benchmarks.images.wortmannin import nuclear_share, nucleus, treatments
from benchmarks.page import shown
from benchmarks.rows import Row, Table, rounded
from cellflow.cli.image_sizes import CPU
from cellflow.estimators import latents
from cellflow.images import ImageSet
from cellflow.metrics import blind_to
from cellflow.metrics.features import Features
from cellflow.networks.sizes import unet_for

ACROSS = 2
"""Cells along a side of a field."""
FIELDS = 400
"""Fields of a side to train on: the cells are fewer than their places, and are drawn anew for each field."""
SPENT = ("train_seconds", "sample_seconds")
BACK = "real, there and back"
SCORES = {
    "fd": "FD-wortmannin", "fd_effnet": "FD-EffNetLite0", "measured": "nuclear share of the protein",
    "high_frequency": "high frequencies", "kept": "kept (nuclear Dice)", "accuracy": "right class",
}  # fmt: skip


DISTANCES = ("fd", "fd_effnet", "measured")
CONTROLS = ("noise of 5 grey levels", "noise of 10 grey levels", "noise of 20 grey levels", "blurred")


def main(words: Words = None) -> None:
    """Train what the table lacks, and write the page."""
    given = options(
        "studies.latents", __doc__, words, pixels=(150,), latents=(150, 1000), images=64, seed=0, encoder=False
    )
    torch.set_num_threads(1)
    table = Table(given.out / "latents.csv", ("method", "steps", "seed", "n"))
    about: Row = {"seed": given.seed, "device": machine.name(torch.device("cpu"))}
    which = {"seed": given.seed, "n": given.images}
    fields = task(given.seed)
    judge = Fields.of(fields, given.images, given.seed, encoder=given.encoder)
    if not table.read(method=FLOOR, **which):
        controls = [*judge.controls(given.seed), {"method": "do nothing"} | judge(judge.inputs, given.seed)]
        table.put(*({"steps": 0} | about | row for row in controls))
    for name, several in (("pixels", given.pixels), ("latents", given.latents)):
        for steps in map(int, several):
            if not table.read(method=name, steps=steps, **which):
                rows = [about | row for row in measure(judge, name, steps, given.seed)]
                table.put(*rows)
                print(*map(rounded, rows), sep="\n", flush=True)
    page.write(given.out / "latents.md", text(table.read(**which), given.command, given.images))


def cells(fields: Tensor) -> Tensor:
    """Return the cells of fields ``(n, c, h, w)``, one field after the other, in the size that the judge knows."""
    rows = [part.chunk(ACROSS, dim=3) for part in fields.chunk(ACROSS, dim=2)]
    return resized(JUDGED)(torch.stack([cell for row in rows for cell in row], dim=1).flatten(0, 1)).clamp(-1, 1)


def task(seed: int) -> Task:
    """Fields of untreated cells to fields of treated ones, wells A to train, wells B to test."""
    sets = []
    for split in ("train", "test"):
        found, rng = cf.datasets.wortmannin(split), cf.generator(seed=seed)
        sets.append(Sets(*(_fields(found.only(name), rng) for name in ("control", "wortmannin"))))
    way = Direction(
        "control -> wortmannin", "nuclear Dice", overlap(nucleus, nucleus), wanted=(1,), descriptors=nuclear_share,
        described_by=SCORES["measured"],
    )  # fmt: skip
    return Task(sets[0], sets[1], "wortmannin", (way,), view=cells, trained=treatments)


def _fields(some: ImageSet, rng: torch.Generator) -> ImageSet:
    """Return fields of cells that are drawn with replacement, as roots of their intensities."""
    rooted = 2 * ((some.scaled() + 1) / 2).sqrt() - 1
    rows = [
        torch.cat([rooted[torch.randint(len(some), (FIELDS,), generator=rng)] for _ in range(ACROSS)], dim=3)
        for _ in range(ACROSS)
    ]
    return ImageSet(cf.images.to_bytes(torch.cat(rows, dim=2)))


class Fields(Translated):
    """Scores of fields: the features of a field are the mean of those of its cells."""

    @classmethod
    def of(cls, fields: Task, n: int, seed: int, *, encoder: bool) -> "Fields":  # type: ignore[override]
        """Return the judge of at most ``n`` test fields a side."""
        source, target = fields.chosen(fields.directions[0], n, cf.generator(seed=seed))[0]
        return cls(fields, fields.directions[0], source.scaled(), target.scaled(), None, encoder)

    @cached_property
    def features(self) -> dict[str, Features]:
        """What fields are compared by."""

        def mean(fields: Tensor) -> Tensor:
            found: Tensor = self.network(cells(fields)).unflatten(0, (len(fields), ACROSS**2)).mean(1)
            return found

        return super().features | {"fd": mean}


def measure(judge: Fields, name: str, steps: int, seed: int) -> Iterator[Row]:
    """Train a translator, and yield its scores; of latents also what real fields score that were only encoded."""
    setting = latents.TRAIN if name == "latents" else None
    sides, shape = judge.task.train, judge.task.train.source.shape
    carried = shape if setting is None else latents.state_shape(latents.default_autoencoder(shape), shape)
    start = time.process_time()
    model = cf.DomainTranslator(
        steps=steps, batch_size=CPU.batch_size, network=unet_for(carried, width=CPU.width), autoencoder=setting,
        seed=seed, device="cpu",
    ).fit(*sides)  # fmt: skip
    trained = time.process_time()
    outputs = model.translate(ImageSet(cf.images.to_bytes(judge.inputs))).scaled()
    spent = dict(zip(SPENT, (trained - start, time.process_time() - trained), strict=True))
    yield {"method": name, "steps": steps} | spent | judge(outputs, seed)
    if model.autoencoder_ is not None:
        again = latents.pixels(model.autoencoder_, latents.latents(model.autoencoder_, judge.real).cpu())
        yield {"method": BACK, "steps": steps} | judge(again.clamp(-1, 1), seed)


def text(rows: list[Row], command: str, n: int) -> list[str]:
    """Return the page."""
    first, last = page.fill(
        Path(__file__).with_suffix(".md"), made=page.made_by(command), n=n, fields=FIELDS, batch=CPU.batch_size,
        width=CPU.width,
    )  # fmt: skip
    names = [name for name in SCORES if any(row.get(name) is not None for row in rows)]
    head = ["method", "steps", "training s", "sampling s", *(SCORES[name] for name in names)]
    order = sorted(rows, key=lambda row: (row["steps"] > 0, row["method"] == BACK))
    lines = [
        [row["method"], row["steps"] or "", *map(_seconds(row), SPENT), *(shown(row, name) for name in names)]
        for row in order
    ]
    return [*first, "", *page.table(head, lines), "", *_seen(rows), "", *last]


def _seen(rows: list[Row]) -> Iterator[str]:
    """Say which controls each distance does not see."""
    scores = {row["method"]: row for row in rows}
    for name in DISTANCES:
        known = {how: row[name] for how, row in scores.items() if how in CONTROLS and row.get(name) is not None}
        if known:
            blind = blind_to(scores[FLOOR][name], known)
            yield f"- {SCORES[name]} {'is blind to: ' + ', '.join(blind) if blind else 'sees every control'}."


def _seconds(row: Row) -> Callable[[str], str]:
    return lambda name: f"{row[name]:.0f}" if row.get(name) else ""


if __name__ == "__main__":
    guarded("studies.latents", main)

"""Images per second of U-Nets: ``python -m benchmarks.speed images``.

A training step and an evaluation in sampling of our U-Net, of torchcfm's wrapper around the guided-diffusion U-Net, and
of diffusers' UNet2DModel, at equal numbers of parameters, in turn within one run; memory beside it. Where a package is
not installed it is skipped by name. ``size=small`` is for a CPU, ``size=full`` (35.7 million parameters, 32 x 32, batch
128: the CIFAR-10 network of the OT-CFM paper) for a GPU, where the fused optimiser, bf16, channels last, compilation
and CUDA graphs are added one by one, and the share of the chip's peak is printed. ``compiled=`` names the packages that
are compiled beside ours: none of them saves most of the time.
"""

import importlib.metadata
import platform
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import cellflow as cf
from benchmarks import machine, page, peers
from benchmarks.command import Several, Words, options
from benchmarks.rows import Row, Table

PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40": 181e12}
"""Dense bf16 operations per second of some chips, from their data sheets."""


class Size(NamedTuple):
    """Images and networks of one size."""

    channels: int
    pixels: int
    batch: int
    width: int
    multipliers: tuple[int, ...]
    blocks: int
    heads: int

    def images(self, n: int) -> Tensor:
        return torch.randn(n, self.channels, self.pixels, self.pixels)


SIZES = {
    "small": Size(channels=1, pixels=28, batch=64, width=32, multipliers=(1, 2, 2), blocks=1, heads=1),
    "full": Size(channels=3, pixels=32, batch=128, width=128, multipliers=(1, 2, 2, 2), blocks=2, heads=4),
}
Made = tuple[nn.Module, Callable[[Tensor, Tensor], Tensor]]


def ours(size: Size) -> Made:
    """Return our U-Net, with attention on the second level, and the field that it is."""
    shape: Any = {"width": size.width, "multipliers": size.multipliers, "blocks": size.blocks, "attention": (1,)}
    net = cf.networks.UNet(size.channels, **shape)
    return net, net


def torchcfm(size: Size) -> Made:
    """Return torchcfm's, as its CIFAR-10 example builds it."""
    net = importlib.import_module("torchcfm.models.unet.unet").UNetModelWrapper(
        dim=(size.channels, size.pixels, size.pixels), num_channels=size.width, num_res_blocks=size.blocks,
        channel_mult=size.multipliers, attention_resolutions=str(size.pixels // 2), num_heads=size.heads,
        num_head_channels=64,
    )  # fmt: skip
    return net, net


def diffusers(size: Size) -> Made:
    """Return diffusers' UNet2DModel, as a field."""
    attends = [level == 1 for level in range(len(size.multipliers))]
    net = importlib.import_module("diffusers").UNet2DModel(
        sample_size=size.pixels, in_channels=size.channels, out_channels=size.channels, layers_per_block=size.blocks,
        block_out_channels=tuple(size.width * multiplier for multiplier in size.multipliers),
        down_block_types=tuple("AttnDownBlock2D" if has else "DownBlock2D" for has in attends),
        up_block_types=tuple("AttnUpBlock2D" if has else "UpBlock2D" for has in reversed(attends)),
        attention_head_dim=64,
    )  # fmt: skip
    return net, cf.networks.DiffusersField(net)


NETWORKS = {"cellflow": ours, "torchcfm": torchcfm, "diffusers": diffusers}
OTHERS = ("torchcfm", "diffusers")
TASKS = ("train", "sample")


PLAIN = "float32, optimiser not fused"
MODES = (
    PLAIN, "float32", "bf16", "bf16, channels last", "bf16, channels last, compiled",
    "bf16, channels last, compiled, CUDA graphs",
)  # fmt: skip
"""One thing is added at a time; AdamW is fused in all but the first. Our U-Net works channels last in every mode."""
ON_A_CPU = ("float32",)
"""The modes of a CPU."""


class Contender:
    """A network with its optimiser, ready to be timed."""

    def __init__(self, name: str, mode: str, size: Size, device: torch.device) -> None:
        torch.manual_seed(0)
        self.net, field = NETWORKS[name](size)
        layout: Any = torch.channels_last if "channels last" in mode else torch.contiguous_format
        self.net.to(device=device)
        if "channels last" in mode:
            self.net.to(memory_format=layout)  # type: ignore[call-overload]
        how = "reduce-overhead" if "CUDA graphs" in mode else "default"
        self.field = torch.compile(field, mode=how) if "compiled" in mode else field
        self.x, self.target = (size.images(size.batch).to(device, memory_format=form) for form in (layout, None))
        self.t = torch.rand(size.batch, device=device)
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=1e-4, fused=mode != PLAIN)
        self.bf16, self.device = "bf16" in mode, device

    def train(self) -> None:
        with self._precision():
            loss = (self.field(self.t, self.x) - self.target).square().mean()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def sample(self) -> None:
        with torch.no_grad(), self._precision():
            self.field(self.t, self.x)

    def seconds(self, act: Callable[[], None], repeats: int) -> float:
        """Return what some repeats of a task take."""
        clock = machine.clock(self.device)
        start = clock()
        for _ in range(repeats):
            act()
        return clock() - start

    def megabytes(self) -> float:
        """Return the most memory of one training step: the GPU's, or the process's so far on a CPU."""
        gpu = self.device.type == "cuda"
        if gpu:
            torch.cuda.reset_peak_memory_stats()
        self.train()
        return torch.cuda.max_memory_allocated() / 2**20 if gpu else machine.peak_megabytes()

    def _precision(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, dtype=torch.bfloat16) if self.bf16 else nullcontext()


def rates(contenders: dict[str, Contender], task: str, size: Size, rounds: int, repeats: int) -> dict[str, list[float]]:
    """Return images per second of every round; contenders take turns, and the first round warms up."""
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, contender in contenders.items():
            act = getattr(contender, task)
            for _ in range(3 if turn == 0 else 0):
                act()
            found[name].append(size.batch * repeats / contender.seconds(act, repeats))
    return {name: values[1:] for name, values in found.items()}


def measure(mode: str, size: Size, device: torch.device, rounds: int, repeats: int, names: list[str]) -> Iterator[Row]:
    """Yield a row for each network and task in one mode."""
    contenders = {name: Contender(name, mode, size, device) for name in names if peers.is_there(name)}
    memory = {name: round(contender.megabytes()) for name, contender in contenders.items()}
    peak = peak_of(device)
    for task in TASKS:
        found = rates(contenders, task, size, rounds, repeats)
        for name, values in found.items():
            share = round(median(values) * operations(name, task, size) / peak, 4) if peak else None
            ratio = median(a / b for a, b in zip(found["cellflow"], values, strict=True))
            parameters = sum(weight.numel() for weight in contenders[name].net.parameters())
            yield {
                "mode": mode, "network": name, "parameters": parameters, "task": task,
                "images_per_second": round(median(values), 1), "ours_against_it": round(ratio, 3),
                "megabytes": memory[name], "share_of_peak": share, "device": machine.name(device),
            }  # fmt: skip


def peak_of(device: torch.device) -> float | None:
    """Return the most operations per second of a chip in bf16, if it is a GPU that we know."""
    chip = torch.cuda.get_device_name() if device.type == "cuda" else ""
    return next((value for known, value in PEAK.items() if known in chip), None)


@cache
def operations(name: str, task: str, size: Size) -> int:
    """Return the operations of a network for one image: of a training step, or of an evaluation."""
    field = NETWORKS[name](size)[1]
    plain = sdpa_kernel(SDPBackend.MATH)  # attention in one piece is not counted on every device
    with plain, FlopCounterMode(display=False) as counter, torch.set_grad_enabled(task == "train"):
        loss = field(torch.rand(1), size.images(1)).square().mean()
        if task == "train":
            loss.backward()
    return int(counter.get_total_flops())


def text(rows: list[Row], size: str, command: str, device: torch.device, note: str) -> list[str]:
    """Return the page."""
    chip = torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.machine()} CPU, one thread"
    packages = ["torch", *(name for name in OTHERS if name in {row["network"] for row in rows})]
    made = page.made_by(command, ", ".join([chip, *map(_with_version, packages)]))
    (about,) = page.fill(Path(__file__).with_name("images.md"), size=size, made=made, **SIZES[size]._asdict())
    head = [name for name in rows[0] if name != "device"]
    table = page.table(head, ([row[name] for name in head] for row in rows))
    return [*about, *([note] if note else []), "", *table, "", *best_of(rows)]


def best_of(rows: list[Row]) -> Iterator[str]:
    """Say for each task how our quickest mode compares with the quickest mode of any other network."""
    for task in TASKS:
        found = [row for row in rows if row["task"] == task]
        sides = [[row for row in found if (row["network"] == "cellflow") == ours] for ours in (True, False)]
        if all(sides):
            one, other = (max(side, key=lambda row: row["images_per_second"]) for side in sides)
            ratio = one["images_per_second"] / other["images_per_second"]
            best = f"{other['network']} at its best ({other['mode']})"
            yield f"- {task}: ours at its best ({one['mode']}) is {ratio:.3g} times {best}."


def _with_version(package: str) -> str:
    """Return a package's name and version. Rows of an earlier run may be of one that is not installed here."""
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return package


def main(words: Words = None) -> None:
    """Measure every network in every mode that this machine has, those aside that are in the table already.

    Ours is measured again beside one that is new: ratios are of networks that took turns.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    gpu = device.type == "cuda"
    given = options(
        "speed images", __doc__, words, size=["full", "small"] if gpu else ["small", "full"], rounds=5,
        repeats=20 if gpu else 3, compiled=Several(OTHERS),
    )  # fmt: skip
    name, where = f"image_speed_{given.size}", machine.name(device)
    table = Table(given.out / f"{name}.csv", ("mode", "network", "task"))
    for mode in MODES if gpu else ON_A_CPU:
        kept = table.read(device=where)  # those of another machine go
        there = {row["network"] for row in kept if row["mode"] == mode}
        names = ["cellflow", *given.compiled] if "compiled" in mode else [*NETWORKS]
        new = [other for other in names if other not in there and peers.is_there(other)]
        if new:
            asked = [*dict.fromkeys(["cellflow", *new])]
            found = list(measure(mode, SIZES[given.size], device, given.rounds, given.repeats, asked))
            table.put(*kept, *found, whole=True)
            print(*found, sep="\n", flush=True)
        rows = sorted(table.read(device=where), key=lambda row: MODES.index(row["mode"]))
        lines = text(rows, given.size, given.command, device, given.note)
        page.write(given.out / f"{name}.md", lines)  # now: the run may be stopped

"""Images per second of U-Nets: ``python -m benchmarks.image_speed``.

A training step and an evaluation in sampling of our U-Net, of torchcfm's wrapper around the guided-diffusion U-Net, and
of diffusers' UNet2DModel, at equal numbers of parameters, in turn within one run; memory beside it. Where a package is
not installed it is skipped by name. ``--size small`` is for a CPU, ``--size full`` (35.7 million parameters, 32 x 32,
batch 128: the CIFAR-10 network of the OT-CFM paper) for a GPU, where bf16, compilation and CUDA graphs are added one by
one and the share of the chip's peak is printed.
"""

import argparse
import csv
import importlib
import importlib.metadata
import importlib.util
import platform
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import cellflow as cf

RESULTS = Path(__file__).parent / "results"
PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40": 181e12}
"""Dense bf16 operations per second of some chips, from their data sheets."""


@dataclass(frozen=True)
class Size:
    """Images and networks of one size."""

    channels: int
    pixels: int
    batch: int
    width: int
    multipliers: tuple[int, ...]
    blocks: int
    heads: int


SIZES = {
    "small": Size(channels=1, pixels=28, batch=64, width=32, multipliers=(1, 2, 2), blocks=1, heads=1),
    "full": Size(channels=3, pixels=32, batch=128, width=128, multipliers=(1, 2, 2, 2), blocks=2, heads=4),
}
Made = tuple[nn.Module, Callable[[Tensor, Tensor], Tensor]]


def ours(size: Size) -> Made:
    """Return our U-Net, with attention on the second level."""
    shape = {"width": size.width, "multipliers": size.multipliers, "blocks": size.blocks, "attention": (1,)}
    net = cf.networks.UNet(size.channels, **shape)  # type: ignore[arg-type]
    return net, net


def torchcfm(size: Size) -> Made:
    """Return torchcfm's, as its CIFAR-10 example builds it."""
    module = importlib.import_module("torchcfm.models.unet.unet")
    net = module.UNetModelWrapper(
        dim=(size.channels, size.pixels, size.pixels),
        num_channels=size.width,
        num_res_blocks=size.blocks,
        channel_mult=size.multipliers,
        attention_resolutions=str(size.pixels // 2),
        num_heads=size.heads,
        num_head_channels=64,
    )
    return net, net


def diffusers(size: Size) -> Made:
    """Return diffusers' UNet2DModel, as a field."""
    module = importlib.import_module("diffusers")
    attends = [level == 1 for level in range(len(size.multipliers))]
    net = module.UNet2DModel(
        sample_size=size.pixels,
        in_channels=size.channels,
        out_channels=size.channels,
        layers_per_block=size.blocks,
        block_out_channels=tuple(size.width * multiplier for multiplier in size.multipliers),
        down_block_types=tuple("AttnDownBlock2D" if has else "DownBlock2D" for has in attends),
        up_block_types=tuple("AttnUpBlock2D" if has else "UpBlock2D" for has in reversed(attends)),
        attention_head_dim=64,
    )
    return net, cf.networks.DiffusersField(net)


NETWORKS = {"cellflow": ours, "torchcfm": torchcfm, "diffusers": diffusers}


@dataclass(frozen=True)
class Mode:
    """How a network is run."""

    name: str
    bf16: bool = False
    channels_last: bool = False
    compile: str | None = None


CPU_MODES = [Mode("float32")]
GPU_MODES = [
    Mode("float32"),
    Mode("bf16", bf16=True),
    Mode("bf16, channels last", bf16=True, channels_last=True),
    Mode("bf16, channels last, compiled", bf16=True, channels_last=True, compile="default"),
    Mode("bf16, channels last, compiled, CUDA graphs", bf16=True, channels_last=True, compile="reduce-overhead"),
]
"""One thing is added at a time. Our U-Net works channels last in every mode."""


class Contender:
    """A network with its optimiser, ready to be timed."""

    def __init__(self, name: str, mode: Mode, size: Size, device: torch.device) -> None:
        torch.manual_seed(0)
        self.net, field = NETWORKS[name](size)
        layout = torch.channels_last if mode.channels_last else torch.contiguous_format
        self.net.to(device=device)
        if mode.channels_last:
            self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.field = torch.compile(field, mode=mode.compile) if mode.compile else field
        shape = (size.batch, size.channels, size.pixels, size.pixels)
        self.x = torch.randn(shape, device=device).to(memory_format=layout)
        self.t, self.target = torch.rand(size.batch, device=device), torch.randn(shape, device=device)
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=1e-4, fused=True)
        self.bf16, self.device = mode.bf16, device

    def train(self) -> None:
        """Take one step."""
        with self._precision():
            loss = (self.field(self.t, self.x) - self.target).square().mean()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def sample(self) -> None:
        """Evaluate the field once, as a solver does."""
        with torch.no_grad(), self._precision():
            self.field(self.t, self.x)

    def _precision(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, dtype=torch.bfloat16) if self.bf16 else nullcontext()


def rates(
    contenders: dict[str, Contender], size: Size, rounds: int, repeats: int
) -> Iterator[tuple[str, str, list[float]]]:
    """Yield name, task and images per second of every round; contenders take turns."""
    for task in ("train", "sample"):
        found: dict[str, list[float]] = {name: [] for name in contenders}
        for turn in range(rounds + 1):
            for name, contender in contenders.items():
                act = getattr(contender, task)
                for _ in range(3 if turn == 0 else 0):
                    act()
                found[name].append(size.batch * repeats / _seconds(act, repeats, contender.device))
        yield from ((name, task, values[1:]) for name, values in found.items())  # the first round warms up


def _seconds(act: Callable[[], None], repeats: int, device: torch.device) -> float:
    wait = torch.cuda.synchronize if device.type == "cuda" else (lambda: None)
    wait()
    start = time.perf_counter()
    for _ in range(repeats):
        act()
    wait()
    return time.perf_counter() - start


def megabytes(contender: Contender) -> float:
    """Return the most memory of one training step: the GPU's, or the process's so far on a CPU."""
    if contender.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        contender.train()
        return torch.cuda.max_memory_allocated() / 2**20
    contender.train()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def operations(size: Size) -> float:
    """Return the floating-point operations of a training step of our network, per image."""
    net, _ = ours(size)
    x = torch.randn(1, size.channels, size.pixels, size.pixels)
    with FlopCounterMode(display=False) as counter:
        net(torch.rand(1), x).square().mean().backward()
    return float(counter.get_total_flops())


def measure(
    mode: Mode, size: Size, device: torch.device, rounds: int, repeats: int, names: list[str]
) -> Iterator[dict[str, Any]]:
    """Yield a row for each network and task in one mode."""
    contenders = {}
    for name in names:
        if name != "cellflow" and importlib.util.find_spec(name) is None:
            print(f"skipped: {name} is not installed")
            continue
        contenders[name] = Contender(name, mode, size, device)
    memory = {name: megabytes(contender) for name, contender in contenders.items()}
    found = list(rates(contenders, size, rounds, repeats))
    base = {task: values for name, task, values in found if name == "cellflow"}
    peak = next((v for chip, v in PEAK.items() if device.type == "cuda" and chip in torch.cuda.get_device_name()), None)
    for name, task, values in found:
        yield {
            "mode": mode.name,
            "network": name,
            "parameters": sum(weight.numel() for weight in contenders[name].net.parameters()),
            "task": task,
            "images_per_second": round(median(values), 1),
            "ours_against_it": round(median(a / b for a, b in zip(base[task], values, strict=True)), 3),
            "megabytes": round(memory[name]),
            "share_of_peak": round(median(values) * operations(size) / peak, 3)
            if peak and name == "cellflow" and task == "train" and mode.bf16
            else "",
        }


def write(rows: list[dict[str, Any]], size: str, command: str, device: torch.device, *, note: str = "") -> None:
    """Write the rows as CSV, and as a table with the command and the machine."""
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"image_speed_{size}.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    machine = torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.machine()} CPU, one thread"
    about = SIZES[size]
    lines = [
        f"# Images per second ({size})",
        "",
        f"Made by `{command}` on {time.strftime('%Y-%m-%d')}: {machine}, {_versions(rows)}.",
        f"Images {about.channels} x {about.pixels} x {about.pixels}, batch {about.batch}; networks take turns, medians",
        "over rounds; the ratio is the median of the ratios of each round, ours over the other. A training step is",
        "forward, backward and AdamW. Memory is the peak of a training step on a GPU, of the whole process so far on a",
        "CPU. The share of the peak counts the operations of the matrix products and convolutions, in bf16.",
        *([note] if note else []),
        "",
        f"| {' | '.join(rows[0])} |",
        f"|{'---|' * len(rows[0])}",
        *(f"| {' | '.join(str(value) for value in row.values())} |" for row in rows),
    ]
    (RESULTS / f"image_speed_{size}.md").write_text("\n".join(lines) + "\n")


def _versions(rows: list[dict[str, Any]]) -> str:
    """Return which torch this ran on, and which releases of the other packages were measured."""
    others = {row["network"] for row in rows} - {"cellflow"}
    names = ["torch", *(name for name in NETWORKS if name in others)]
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)


def main() -> None:
    """Measure every network in every mode that this machine has; the table grows by one mode at a time."""
    others = [name for name in NETWORKS if name != "cellflow"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=[*SIZES], default="full" if torch.cuda.is_available() else "small")
    parser.add_argument("--rounds", type=int, default=5, help="how often every network takes its turn")
    parser.add_argument("--repeats", type=int, help="steps per turn; 3 on a CPU, 20 on a GPU where not given")
    parser.add_argument(
        "--compiled", nargs="*", choices=others, default=others, help="compile these besides ours; a minute each"
    )
    parser.add_argument("--note", default="", help="a sentence for the page: what its reader should know of this run")
    given = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    repeats = given.repeats or (20 if device.type == "cuda" else 3)
    command = f"python -m benchmarks.image_speed --size {given.size} --rounds {given.rounds} --repeats {repeats}"
    command += "" if given.compiled == others else " ".join([" --compiled", *given.compiled])
    rows = []
    for mode in GPU_MODES if device.type == "cuda" else CPU_MODES:
        names = ["cellflow", *given.compiled] if mode.compile else [*NETWORKS]
        for row in measure(mode, SIZES[given.size], device, given.rounds, repeats, names):
            rows.append(row)
            print(row, flush=True)
        write(rows, given.size, command, device, note=given.note)
    print((RESULTS / f"image_speed_{given.size}.md").read_text())


if __name__ == "__main__":
    main()

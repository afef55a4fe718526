"""Public files and data sets, recognised by checksum: on this machine, in the cache, or at their source."""

import gzip
import hashlib
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from anndata import AnnData

from cellflow.cells.h5ad import read_adata
from cellflow.cells.store_files import any_text
from cellflow.datasets.download import cache, download, folders

_CHUNK = 1 << 20


@dataclass(frozen=True)
class PublicFile:
    """A published file that is kept as it is.

    Parameters
    ----------
    name
        Path below a folder of data sets, such as ``mnist/train-images-idx3-ubyte.gz``.
    sha256
        Its checksum; for a .gz file that of its content, which does not change when it is compressed again.
    url
        Its address, or ``None`` if it cannot be downloaded.
    room
        The folder in ``$CELLFLOW_DATA`` for files of its kind.
    """

    name: str
    sha256: str
    url: str | None = None
    room: str = "images"

    def find(self) -> Path | None:
        """Return the path of the file on this machine, or ``None``.

        Raises
        ------
        ValueError
            When a file of that name holds something else.
        """
        for folder in folders(self.room):
            path = folder / self.name
            if path.is_file():
                self._verify(path, where=str(path))
                return path
        return None

    def path(self) -> Path:
        """Return the path of the file, after a download into the cache if necessary.

        Raises
        ------
        FileNotFoundError
            When it is not on this machine and cannot be downloaded; the message says which file to put where.
        ValueError
            When a file of that name, or the downloaded file, holds something else.
        """
        found = self.find()
        if found is not None:
            return found
        try:
            return self._fetch()
        except OSError as error:
            raise FileNotFoundError(self._by_hand(error)) from error

    def _fetch(self) -> Path:
        if self.url is None:
            raise OSError("no address is known")
        target = cache() / self.name
        target.parent.mkdir(parents=True, exist_ok=True)
        # In a folder beside the target, so that a reader never meets half a file.
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".incomplete-") as folder:
            fresh = Path(folder, target.name)
            download(self.url, fresh)
            self._verify(fresh, where=self.url)
            fresh.replace(target)
        return target

    def _verify(self, path: Path, *, where: str) -> None:
        found = sha256_of(path)
        if found != self.sha256:
            raise ValueError(
                f"{where} is not the published {self.name}: expected SHA-256 {self.sha256}, found {found}. A download "
                "was discarded: an error page of a proxy looks like this. Move or replace a file of your own."
            )

    def _by_hand(self, error: OSError) -> str:
        looked = ", ".join(str(folder / self.name) for folder in folders(self.room))
        fetch = "Ask for it at the source in the docstring" if self.url is None else f"By hand, fetch {self.url}"
        return (
            f"{self.name} is not on this machine and could not be downloaded ({error}). Looked for {looked}. {fetch}, "
            f"and put it there: {cache() / self.name}."
        )


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, for a .gz file of its content; for damaged content, a message instead."""
    hash_ = hashlib.sha256()
    try:
        with (
            gzip.open(path)
            if path.suffix == ".gz" and path.suffixes[-2:] != [".tar", ".gz"]
            else path.open("rb") as file
        ):
            while chunk := file.read(_CHUNK):
                hash_.update(chunk)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        return f"not a gzip file ({error})"
    return hash_.hexdigest()


@dataclass(frozen=True)
class PublicData:
    """A data set that others publish, and how to recognise it.

    Parameters
    ----------
    file
        Name of the converted file, ``<name>.h5ad``.
    originals
        File name and address of each published file.
    convert
        Makes the AnnData from a folder that holds the originals.
    digest
        SHA-256 of the values, as `digest_of` computes it.

    Notes
    -----
    The checksum is over the values after conversion rather than over the published files: it then holds for a file that
    was downloaded, converted elsewhere, or rewritten by another version of anndata.
    """

    file: str
    originals: tuple[tuple[str, str], ...]
    convert: Callable[[Path], AnnData]
    digest: str

    def load(self) -> AnnData:
        """Read the data set from this machine, else from the cache, else from its source.

        Raises
        ------
        FileNotFoundError
            When it is not on this machine and cannot be downloaded; the message says which file to put where.
        ValueError
            When a file of that name holds other values.
        """
        for folder in folders("single_cell"):
            if (folder / self.file).is_file():
                return self._verified(_read(folder / self.file), where=str(folder / self.file))
            if all((folder / name).is_file() for name, _ in self.originals):
                return self._verified(self._converted(folder), where=str(folder))
        try:
            return self._fetch()
        except OSError as error:
            raise FileNotFoundError(self._by_hand(error)) from error

    def _fetch(self) -> AnnData:
        place = cache()
        place.mkdir(parents=True, exist_ok=True)
        # Everything happens in a folder beside the target, so that a reader never meets half a file.
        with tempfile.TemporaryDirectory(dir=place, prefix=".incomplete-") as folder:
            for name, url in self.originals:
                download(url, Path(folder, name))
            adata = self._verified(self._converted(Path(folder)), where=self.originals[0][1])
            with any_text():
                adata.write_h5ad(Path(folder, self.file))
            Path(folder, self.file).replace(place / self.file)
        return adata

    def _converted(self, folder: Path) -> AnnData:
        try:
            return self.convert(folder)
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            names = ", ".join(name for name, _ in self.originals)
            message = (
                f"{names} did not hold what is published under this name ({error}). An error page of a proxy looks "
                "like this; download the file again over another connection."
            )
            raise ValueError(message) from error

    def _verified(self, adata: AnnData, *, where: str) -> AnnData:
        try:
            found = digest_of(adata)
        except (TypeError, ValueError) as error:
            found = f"values that are not numbers ({error})"
        if found != self.digest:
            message = (
                f"{where} does not hold the values of {self.file}: expected SHA-256 {self.digest}, found {found}. "
                "A download was discarded; move or replace a file of your own."
            )
            raise ValueError(message)
        return adata

    def _by_hand(self, error: OSError) -> str:
        places = ", ".join(str(folder) for folder in folders("single_cell"))
        addresses = "\n".join(f"  {url}" for _, url in self.originals)
        return (
            f"{self.file} is not on this machine and could not be downloaded ({error}). Looked in: "
            f"{places}. To do it by hand, fetch\n{addresses}\n"
            f"and put the files, under these names, into {cache()}, or put {self.file} into your own folder and set "
            "CELLFLOW_DATA to it."
        )


def digest_of(adata: AnnData) -> str:
    """Return the SHA-256 of ``obsm["X_pca"]`` and ``obs["day"]``, as little-endian float32, row by row.

    Examples
    --------
    >>> cells = AnnData(obs={"day": [1.0, 2.0]}, obsm={"X_pca": np.zeros((2, 3))})
    >>> digest_of(cells)[:8]
    '297170cf'
    """
    hash_ = hashlib.sha256()
    for values in (adata.obsm["X_pca"], adata.obs["day"]):
        hash_.update(np.ascontiguousarray(values, dtype="<f4").tobytes())
    return hash_.hexdigest()


def _read(path: Path) -> AnnData:
    try:
        adata = read_adata(path)
    except ValueError as error:
        message = f"{path} cannot be read as h5ad: it is damaged. Remove it to download it again."
        raise ValueError(message) from error
    if "X_pca" not in adata.obsm or "day" not in adata.obs:
        message = (
            f"{path} is another file of that name: expected obsm['X_pca'] and obs['day'], found obsm "
            f"{list(adata.obsm)} and obs {list(adata.obs)}. Move it away to download the right one."
        )
        raise ValueError(message)
    return adata

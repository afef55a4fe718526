"""A file that others publish, recognised by its checksum: on this machine, in the cache, or at its source."""

import gzip
import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cellflow.datasets.download import download
from cellflow.datasets.places import cache, folders

_CHUNK = 1 << 20


@dataclass(frozen=True)
class PublicFile:
    """A published file that is kept as it is.

    Parameters
    ----------
    name
        Where it lies below a folder of data sets, such as ``mnist/train-images-idx3-ubyte.gz``.
    sha256
        Its checksum; of a .gz file that of its content, which does not change when it is packed again.
    url
        Its address, or None where it cannot be downloaded.
    room
        The folder in ``$CELLFLOW_DATA`` for files of its kind.
    """

    name: str
    sha256: str
    url: str | None = None
    room: str = "images"

    def find(self) -> Path | None:
        """Return where the file lies on this machine, or None.

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
        """Return where the file lies, after a download into the cache if need be.

        Raises
        ------
        FileNotFoundError
            When it is nowhere and cannot be downloaded; the message says which file to put where.
        ValueError
            When a file of that name, or what was downloaded, holds something else.
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
                f"{where} is not the published {self.name}: expected SHA-256 {self.sha256}, found {found}. Nothing was "
                "kept of a download: an error page of a proxy looks like this. A file of your own should be moved "
                "away or replaced."
            )

    def _by_hand(self, error: OSError) -> str:
        looked = ", ".join(str(folder / self.name) for folder in folders(self.room))
        fetch = "Ask for it where the docstring says" if self.url is None else f"To do it by hand, fetch {self.url}"
        return (
            f"{self.name} is not on this machine and could not be downloaded ({error}). Looked for {looked}. {fetch}, "
            f"and put it there: {cache() / self.name}."
        )


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, and of a .gz file that of its content; of damaged content a word instead."""
    hash_ = hashlib.sha256()
    try:
        with (
            gzip.open(path)
            if path.suffix == ".gz" and path.suffixes[-2:] != [".tar", ".gz"]
            else path.open("rb") as file
        ):
            while chunk := file.read(_CHUNK):
                hash_.update(chunk)
    except (gzip.BadGzipFile, EOFError) as error:
        return f"no gzip file ({error})"
    return hash_.hexdigest()

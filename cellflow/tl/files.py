"""Tools on cells in files: they read only what they need, and write into the files."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from cellflow.cells.store_results import results_of
from cellflow.cells.stores import Stored, read_stores
from cellflow.signature import in_place_of

if TYPE_CHECKING:
    from anndata import AnnData

T = TypeVar("T", bound=Callable[..., Any])


def on_files(verb: T) -> T:
    """Return a tool that takes files where it takes an AnnData: a path, a pattern, or a list of them.

    Of ``obsm`` it gets the representation of its flow and what its arguments name. A tool with an argument ``copy``
    writes into the files, unless a copy is requested.

    Parameters
    ----------
    verb
        A tool: a function whose first argument is an AnnData.

    Examples
    --------
    >>> import tempfile
    >>> import cellflow as cf
    >>> adata, path = cf.datasets.branching(seed=0), f"{tempfile.mkdtemp()}/cells.h5ad"
    >>> adata.write_h5ad(path)
    >>> flow = cf.SnapshotFlow(rep="X_latent", steps=20).fit(path)
    >>> cf.tl.velocity(path, flow)
    >>> cf.cells.read_stores(path, rep="velocity").obsm["velocity"].shape
    (1600, 2)
    """
    signature = inspect.signature(verb)

    def call(*given: Any, **named: Any) -> Any:
        data = given[0] if given else named.get("adata")
        if not isinstance(data, str | Path | list | tuple):
            return verb(*given, **named)
        arguments = signature.bind(*given, **named)
        arguments.apply_defaults()
        with _opened(cast("Stored", data), arguments.arguments) as cells:
            return verb(cells, *given[1:], **{name: named[name] for name in named if name != "adata"})

    return cast("T", in_place_of(verb, call))


@contextmanager
def _opened(data: Stored, arguments: Mapping[str, Any]) -> Iterator["AnnData"]:
    """Yield the cells of files, to be written into or not."""
    rep = getattr(arguments.get("flow"), "rep", arguments.get("rep"))
    named = [value for value in arguments.values() if isinstance(value, str) and value != rep]
    if arguments.get("copy", True):
        yield read_stores(data, rep=rep, beside=named)
        return
    with results_of(data, rep=rep, beside=named) as cells:
        yield cells

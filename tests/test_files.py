"""Files are replaced as a whole: killed, on a full disk, in a folder that is read-only; and one process at a time."""

import ast
import errno
import fcntl
import json
import os
import signal
import stat
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from crashing import context, kills, on_a_full_disk, said, wait_for, without_rights

import cellflow as cf
from cellflow.cli import runs
from cellflow.errors import CheckpointError
from cellflow.files import UNSUPPORTED, committed
from cellflow.lock import HOLDER, LOCK, locked
from cellflow.report.grids import save_grid
from cellflow.training import History
from cellflow.training.checkpoint import save_tensors

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and limits of POSIX")


def text(path, n):
    with committed(path) as partial:
        partial.write_text("x" * 2500 * n)


def cells(path, n):
    runs.write_cells(anndata.AnnData(np.ones((100 * n, 50), np.float32)), path)


def table(path, n):
    runs.write_table(pd.DataFrame({"a": range(1000 * n)}), path)


def tensors(path, n):
    save_tensors(path, {"a": torch.zeros(1000 * n)}, {})


def history(path, n):
    History({"loss": [1.0] * 1000 * n}).to_csv(path)


def picture(path, n):
    save_grid(path, [torch.rand(2, 3, 48 * n, 48, generator=cf.generator(0))])


ALL_WRITERS = [
    (text, "page.html"),
    (cells, "cells.h5ad"),
    (table, "table.csv"),
    (tensors, "state.safetensors"),
    (history, "history.csv"),
    (picture, "grid.png"),
]
"""One of each kind of file of a run folder, each with a size."""
each_writer = pytest.mark.parametrize(("write", "name"), ALL_WRITERS, ids=lambda value: getattr(value, "__name__", ""))


@each_writer
def test_a_write_that_is_killed_leaves_the_old_file_or_the_new_one(tmp_path, write, name):
    for n in (1, 2):
        write(tmp_path / str(n) / name, n)
    old, new = ((tmp_path / str(n) / name).read_bytes() for n in (1, 2))
    path, found = tmp_path / "here" / name, []
    for _ in kills(tmp_path / "here", write, path, 2, before=lambda: write(path, 1)):
        found.append(path.read_bytes())
    assert set(found[:-1]) <= {old, new}
    assert (found[0], found[-1]) == (old, new)
    write(path, 2)
    assert [file.name for file in path.parent.iterdir()] == [name]  # what the killed ones left is gone


@each_writer
def test_a_full_disk_is_said_and_the_old_file_stays(tmp_path, write, name):
    path = tmp_path / name
    write(path, 1)
    old = path.read_bytes()
    assert len(old) > 700
    kind, sentence = said(on_a_full_disk, write, path, 2)
    assert kind == "OSError"
    assert sentence.startswith(f"{path} could not be written: File too large. Free some space, or choose another")
    assert path.read_bytes() == old
    assert [file.name for file in tmp_path.iterdir()] == [name]


@each_writer
def test_a_folder_that_is_read_only_is_said(shared, write, name):
    write(shared / name, 1)
    old = (shared / name).read_bytes()
    shared.chmod(0o555)
    kind, sentence = said(without_rights, write, shared / name, 2)
    assert kind == "PermissionError"
    assert sentence.startswith(f"{shared / name} could not be written: Permission denied. Choose a folder that you may")
    kind, sentence = said(without_rights, write, shared / "new" / name, 2)
    assert kind == "PermissionError"
    assert (shared / name).read_bytes() == old
    shared.chmod(0o755)


@each_writer
def test_files_are_as_private_as_the_user_has_it(tmp_path, write, name):
    for mask, mode in ((0o022, 0o644), (0o077, 0o600), (0o002, 0o664)):
        before = os.umask(mask)
        try:
            write(tmp_path / name, 1)
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == mode


def test_memory_that_runs_out_is_said(tmp_path, monkeypatch):
    def full(*arguments, **settings):
        raise MemoryError

    tensors(tmp_path / "a.safetensors", 1)
    before = (tmp_path / "a.safetensors").read_bytes()
    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(CheckpointError, match=r"a.safetensors could not be written: no memory is left"):
        tensors(tmp_path / "a.safetensors", 2)
    assert (tmp_path / "a.safetensors").read_bytes() == before


def test_other_errors_are_passed_on_and_leave_nothing(tmp_path):
    with pytest.raises(RuntimeError, match="^mine$"), committed(tmp_path / "a.txt"):
        raise RuntimeError("mine")
    assert list(tmp_path.iterdir()) == []


def test_two_threads_may_write_one_file(tmp_path):
    with committed(tmp_path / "a.txt") as first, committed(tmp_path / "b.txt") as second:
        first.write_text("a")
        second.write_text("b")
    assert (tmp_path / "a.txt").read_text() == "a"


def hold(folder, sign):
    with locked(folder):
        sign.touch()
        signal.pause()


def test_a_folder_is_refused_while_another_process_holds_it(tmp_path):
    folder, sign = tmp_path / "run", tmp_path / "sign"
    child = context.Process(target=hold, args=(folder, sign))
    child.start()
    try:
        wait_for(sign, child)
        words = rf"run is in use by process {child.pid} on \S+\. Wait"
        with pytest.raises(CheckpointError, match=words), locked(folder):
            pass
        flow = cf.SnapshotFlow(time_key="day", steps=1)
        with pytest.raises(CheckpointError, match=f"in use by process {child.pid}"):
            flow.fit("not even cells", run=cf.Run(folder))
        with pytest.raises(CheckpointError, match=f"in use by process {child.pid}"), locked(folder, wait=0.2):
            pass
    finally:
        child.kill()
        child.join()
    assert (folder / HOLDER).exists()
    with locked(folder):  # whoever is dead holds nothing
        assert json.loads((folder / HOLDER).read_text())["pid"] == os.getpid()
    assert list(folder.iterdir()) == []


def test_a_holder_on_another_machine_is_named_with_a_cure(tmp_path):
    folder, sign = tmp_path / "run", tmp_path / "sign"
    child = context.Process(target=hold, args=(folder, sign))
    child.start()
    try:
        wait_for(sign, child)
        (folder / HOLDER).write_text(json.dumps({"pid": 7, "host": "elsewhere"}))
        words = rf"process 7 on elsewhere\. .*If that process is gone, remove {folder / LOCK}"
        with pytest.raises(CheckpointError, match=words), locked(folder):
            pass
        (folder / HOLDER).write_text("[")
        with pytest.raises(CheckpointError, match="in use by another process"), locked(folder):
            pass
    finally:
        child.kill()
        child.join()


def test_a_lock_is_given_back_at_errors_and_may_be_nested(tmp_path):
    folder = tmp_path / "deep" / "run"
    with pytest.raises(KeyError, match="True"), locked(folder), locked(folder):
        raise KeyError(str((folder / HOLDER).exists()))
    assert not folder.exists()
    with locked(folder):
        with locked(folder):
            pass
        assert (folder / HOLDER).exists()
        (folder / "kept.txt").touch()
    assert [file.name for file in folder.iterdir()] == ["kept.txt"]


def test_two_threads_do_not_hold_one_folder(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    def second():
        with locked(tmp_path):
            pass

    with ThreadPoolExecutor(1) as pool, locked(tmp_path), pytest.raises(CheckpointError, match="in use by process"):
        pool.submit(second).result()


def test_a_folder_that_is_read_only_is_not_locked(shared):
    shared.chmod(0o555)
    kind, sentence = said(without_rights, hold, shared, shared / "sign")
    assert kind == "PermissionError"
    assert sentence.startswith(f"{shared} could not be written: Permission denied. Choose a folder that you may write")
    shared.chmod(0o755)


WRITING = {
    "write_text", "write_bytes", "to_csv", "savefig", "save", "save_file", "write_h5ad", "write_zarr", "dump", "tofile",
    "savetxt", "savez", "touch",
}  # fmt: skip
"""Functions that write a file."""
APART = {"datasets/download.py", "datasets/public.py"}
"""What fills the cache of data sets, in a folder of its own that is renamed."""
WHOLE = {"history_.to_csv", "model.save", "flow.save", "state.save", "_state.save", "saves.save"}
"""Calls of ours that do it below."""
SENT = {"torch.save(value, buffer)"}
"""What is written into memory, to be sent."""


def test_nothing_is_written_under_its_own_name():
    """Whatever writes is given the temporary name, so that every file is the old one or the new one."""
    package, found = Path(cf.__file__).parent, []
    for path in sorted(package.rglob("*.py")):
        if str(path.relative_to(package)) in APART:
            continue
        for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            shown = ast.unparse(call)
            opened = name == "open" and any(
                isinstance(a, ast.Constant) and str(a.value)[:1] in "wax" for a in call.args
            )
            ours = any(f"{known}(" in shown for known in WHOLE)
            if (name in WRITING or opened) and "partial" not in shown and not ours and shown not in SENT:
                found.append(f"{path.relative_to(package)}:{call.lineno} {shown[:80]}")
    assert found == []


@pytest.mark.parametrize("code", sorted(UNSUPPORTED - {errno.ENOSYS}))  # of which filelock itself warns
def test_drives_that_know_neither_locks_nor_flushes_of_folders_are_written_to(code, tmp_path, monkeypatch):
    def unsupported(*given):
        raise OSError(code, os.strerror(code))

    def flush(number):
        return unsupported() if stat.S_ISDIR(os.fstat(number).st_mode) else None

    monkeypatch.setattr(fcntl, "flock", unsupported)
    monkeypatch.setattr(os, "fsync", flush)
    with locked(tmp_path), committed(tmp_path / "notes.txt") as partial:
        partial.write_text("all of it")
        with locked(tmp_path):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]

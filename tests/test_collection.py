"""The suite is the same list of tests every time: in each worker, at each moment, for each seed of the hashes."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
IMPURE = {
    "clock": 'gzip.compress(b"other", mtime=time.time_ns() // 1000 % 2**31)',
    "order": "*{'one', 'two', 'three', 'four', 'five', 'six'}",
    "draw": "random.random()",
    "folder": "tempfile.gettempdir()",
    "process": "os.getpid()",
}


def collected(folder, seed, temporary):
    """The tests that a new process finds in `folder`, in order; a start takes longer than a tick of the clock."""
    temporary.mkdir()
    quick = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}  # names are the same without plugins
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "", "--assert=plain", "-p", "no:cacheprovider"],
        cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, **quick, "PYTHONHASHSEED": str(seed), "TMPDIR": str(temporary)},
    )  # fmt: skip
    assert found.returncode == 0, found.stdout + found.stderr
    return [line for line in found.stdout.splitlines() if "::" in line]


def test_the_suite_is_collected_alike_twice(request, tmp_path):
    """In two processes, of which this is one where it runs the whole suite; tests that it leaves out are not there."""
    here = [item.nodeid for item in request.session.items]
    one = here if len(here) > 2000 else collected(ROOT, 1, tmp_path / "one")
    chosen = set(one)
    assert len(one) > 2000
    assert len(chosen) == len(one)
    assert one == [name for name in collected(ROOT, 2, tmp_path / "two") if one is not here or name in chosen]
    # What two processes share by chance, and others would not: addresses, bytes, folders of this machine.
    assert [name for name in one if re.search(r"0x[0-9a-f]{6,}|\\x[0-9a-f]{2}|/home/|/tmp", name)] == []


def test_impure_names_are_found(tmp_path):
    suite = tmp_path / "suite"
    suite.mkdir()
    tests = [f"@pytest.mark.parametrize('x', [{value}])\ndef test_{kind}(x): pass\n" for kind, value in IMPURE.items()]
    (suite / "test_it.py").write_text("import gzip, os, random, tempfile, time, pytest\n" + "".join(tests))
    one, two = (collected(suite, seed, tmp_path / str(seed)) for seed in (1, 2))
    assert {kind for kind in IMPURE if [n for n in one if kind in n] != [n for n in two if kind in n]} == set(IMPURE)

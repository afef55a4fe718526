"""What we build on, in its lowest and highest versions: each set in an environment of its own, a few tests in it.

``python .ci/matrix.py [names...]`` makes the environments, one at a time, and writes `docs/versions.md`. Torch is the
one of `constraints.txt` in all of them; other versions of it and of Python are tested where the workflows run.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "docs" / "versions.md"
SHOWN = ("numpy", "scipy", "pandas", "anndata", "scanpy", "POT", "zarr", "torch")
KEPT = ("torch", "lightning-fabric", "hydra-core", "omegaconf", "antlr4-python3-runtime", "pytest", "hypothesis")
"""What stays as `constraints.txt` has it."""
SETS = {
    "pinned": None,
    "lowest": {
        "numpy": "1.26.*", "pandas": "2.0.*", "anndata": "0.10.8", "scanpy": "1.10.0", "POT": "0.9.7",
        "scipy": "1.11.*", "scikit-learn": "1.4.*", "matplotlib": "3.8.*", "zarr": "<3",
    },
    "numpy 1.26": {"numpy": "1.26.*"},
    "pandas 2.0": {"pandas": "2.0.*", "numpy": "<2", "zarr": "<3", "scipy": "<1.17"},
    "highest": {},
    "pandas 3": {"pandas": ">=3", "scipy": "<1.17"},
}  # fmt: skip
"""By name: what is asked for beside our own ranges; ``None`` for `constraints.txt` as it is. The versions of anndata
that take pandas 2.0 and 3 do not read sparse matrices in files with SciPy 1.17, nor the former zarr 3."""
TESTS = (
    "tests/test_readme.py::test_parts_in_the_readme_exist", "tests/test_couplings.py", "tests/test_tl.py",
    "tests/test_tune.py::test_what_is_written_survives_h5ad_and_zarr", "tests/test_snapshots.py", "tests/test_times.py",
    "tests/test_persistence.py",
)  # fmt: skip
SIX_LINES = """
import scanpy as sc, cellflow as cf
adata = cf.datasets.hsmm()
sc.pp.pca(adata)
flow = cf.SnapshotFlow(time_key="hours", steps=50).fit(adata)
middle = cf.tl.interpolate(adata, flow, at=36)
cf.tl.velocity(adata, flow)
cf.pl.trajectories(adata, flow, basis="pca")
"""


def main() -> int:
    """Run the sets that are named, or all, and write the table; return how many fail."""
    parser = argparse.ArgumentParser(prog="python .ci/matrix.py", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *SETS], help="sets to run; by default all")
    asked = parser.parse_args()
    rows = read_table()
    for name in asked.names or SETS:
        rows[name] = row(name)
        write_table(rows)
        print(f"{name}: {rows[name][-1]}", flush=True)
    return sum(not rows[name][-1].startswith("passes") for name in asked.names or SETS)


def row(name: str) -> list[str]:
    """Return the versions of a set, and what came of it."""
    with tempfile.TemporaryDirectory() as folder:
        python = Path(folder) / "env" / "bin" / "python"
        venv.create(Path(folder) / "env", with_pip=True)
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text(constraints_of(name))
        installed = run(
            python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-c", str(constraints),
            f"{ROOT}[test]", *required(name),
        )  # fmt: skip
        if installed.returncode:
            return [*["-"] * len(SHOWN), f"does not install: {last_line(installed)}"]
        versions = versions_in(python)
        lines = run(python, "-W", "ignore", "-c", SIX_LINES)
        if lines.returncode:
            return [*versions, f"the six lines fail: {last_line(lines)}"]
        tests = run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore", "--no-header", *TESTS)
        failed = [line.split()[1].partition("::")[2] for line in tests.stdout.splitlines() if line.startswith("FAILED")]
        said = ", ".join([last_line(tests), *failed[:3]])
        return [*versions, f"passes: {said}" if not tests.returncode else f"fails: {said}"]


def constraints_of(name: str) -> str:
    """Return the constraints of a set: all that are pinned, or only what stays in every set."""
    pinned = (ROOT / "constraints.txt").read_text().splitlines()
    kept = [line for line in pinned if SETS[name] is None or line.partition("==")[0] in KEPT]
    return "\n".join(kept) + "\n"


def required(name: str) -> list[str]:
    """Return what pip is asked for beside the package."""
    asked = SETS[name] or {}
    return [f"{package}{version if version[0] in '<>=' else '==' + version}" for package, version in asked.items()]


def run(*command: object) -> subprocess.CompletedProcess[str]:
    """Run a command from the root, in the tree's own package, without a window."""
    environment = os.environ | {"MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    words = [str(part) for part in command]
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def versions_in(python: Path) -> list[str]:
    """Return the versions that an environment has of what the table shows."""
    code = "from importlib.metadata import version, PackageNotFoundError as E\n"
    code += f"for name in {SHOWN!r}:\n  try: print(version(name))\n  except E: print('-')"
    return run(python, "-c", code).stdout.split()


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    """Return the last line that a command said, without the time that it took."""
    lines = (done.stdout.strip() or done.stderr.strip()).splitlines() or [f"returned {done.returncode}"]
    if done.returncode and done.stderr.strip():
        lines = done.stderr.strip().splitlines()
    return re.sub(r" in [\d.:s ()]+$", "", lines[-1])[:120].replace("|", "/")


def read_table() -> dict[str, list[str]]:
    """Return the rows that the table has already."""
    lines = TABLE.read_text().splitlines() if TABLE.exists() else []
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")][1:]
    return {name: rest for name, *rest in cells if name in SETS}


def write_table(rows: dict[str, list[str]]) -> None:
    """Write the table, in the order of the sets."""
    head = ["set", *SHOWN, "result"]
    body = [[name, *rows[name]] for name in SETS if name in rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *body])
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    TABLE.write_text(f"""# Versions

What `make matrix` found: the six lines of the README, couplings against POT, and tools whose results go through h5ad
and zarr, in environments with the lowest and the highest versions of what we build on. Python {python}.

{table}
""")


if __name__ == "__main__":
    sys.exit(main())

"""A case in a process of its own, so that its memory and threads are its own."""

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.rows import Row
from benchmarks.scale.case import Case, Watch


def measured(case: Case) -> Row:
    """Run a case, and return its row; where it fails, ``failed`` says how and there are no numbers."""
    threads = {name: str(case.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    about = {**case.key, "threads": case.threads, "load": os.getloadavg()[0], "made": case.made}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "row.json"
        words = [case.act.__module__, case.act.__qualname__, json.dumps(dict(case.settings)), str(out)]
        command = [sys.executable, "-m", "benchmarks.scale.process", *words]
        process = subprocess.Popen(command, env=os.environ | threads, start_new_session=True)
        try:
            code = process.wait(case.limit)
        except subprocess.TimeoutExpired:
            return {**about, "failed": f"ended after {case.limit:g} s"}
        finally:
            _end(process)
        if code:
            return {**about, "failed": f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"}
        return {**about, "failed": None, **json.loads(out.read_text())}


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End the process, and those that it started, where it runs still."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def main(module: str, function: str, settings: str, out: str) -> None:
    """Run the function under a watch, and write what both found."""
    watch = Watch()
    found = getattr(importlib.import_module(module), function)(watch, **json.loads(settings)) or {}
    if not watch.row:
        raise RuntimeError(f"{module}.{function} measured nothing: what is to be measured goes within `with watch:`.")
    Path(out).write_text(json.dumps({**watch.row, **found}))


if __name__ == "__main__":
    main(*sys.argv[1:])

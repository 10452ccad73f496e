"""The command line of the benchmarks; what it measures is tested with the cases."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "benchmark.py"


def benchmark(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TOOL), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT.parent)


@pytest.mark.parametrize("arguments", [["--help"], ["--list"]])
def test_the_catalogue_needs_neither_torch_nor_peers(arguments: list[str]) -> None:
    program = (
        "import runpy, sys\n"
        f"sys.argv = [{str(TOOL)!r}, *{arguments!r}]\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'numpy', 'transformers'} & set(sys.modules)\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    shown = "python tools/benchmark.py dvis_daq" if "--help" in arguments else "deformable_480: "
    assert shown in run.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dvis_dak"], "there is no benchmark 'dvis_dak'; nearest: dvis_daq"),
        (["dvis_daq", "--repeats", "0"], "0 is not 1 or more"),
    ],
)
def test_a_wrong_command_line_is_refused(arguments: list[str], message: str) -> None:
    run = benchmark(*arguments)
    assert run.returncode == 2
    assert message in run.stderr

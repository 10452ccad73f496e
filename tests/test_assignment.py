"""The one function of SciPy that is loaded on its own."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from scipy import optimize

from vidseg import assignment


@pytest.mark.parametrize("shape", [(5, 5), (3, 7), (7, 3), (0, 4)])
@pytest.mark.parametrize("maximize", [False, True])
def test_is_that_of_scipy(shape: tuple[int, int], maximize: bool) -> None:
    cost = np.random.default_rng(0).normal(size=shape)
    expected = optimize.linear_sum_assignment(cost, maximize=maximize)
    found = assignment.linear_sum_assignment(cost, maximize=maximize)
    for ours, theirs in zip(found, expected, strict=True):
        assert np.array_equal(ours, theirs)


def test_nothing_else_is_imported_with_it() -> None:
    code = "import sys, vidseg.assignment; sys.exit('scipy.optimize' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_falls_back_to_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assignment, "_load_alone", lambda: None)
    assert assignment._find() is optimize.linear_sum_assignment

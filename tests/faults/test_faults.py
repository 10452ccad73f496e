"""Every planted fault gets its sentence and its exit code, and what must survive does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.engine.support import PLUGIN, make_dataset, write_config
from tests.faults.ground import FAULTS, Fault, Ground
from tests.faults.table import PAGE, as_markdown
from vidseg.engine.chain import plan_stages
from vidseg.engine.setup import run_stages

# A thread of the tensorboard package tells of its end on a full disk by a traceback.
pytestmark = [
    pytest.mark.usefixtures("fresh_plugins"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    config = write_config(folder, make_dataset(folder / "data"))
    assert run_stages(plan_stages(str(config), [], [PLUGIN]), plugins=[PLUGIN]) == 0
    return folder / "output" / "toy"


@pytest.fixture
def ground(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    undisturbed: Path,
) -> Ground:
    return Ground(tmp_path, monkeypatch, capsys, caplog, undisturbed)


def name_of(fault: Fault) -> str:
    return fault.name.replace(" ", "-")


@pytest.mark.parametrize("fault", FAULTS, ids=name_of)
def test_fault(ground: Ground, fault: Fault) -> None:
    with ground.patch.context() as patch:
        ground.patch, whole = patch, ground.patch
        outcome = fault.plant(ground)
        ground.patch = whole
    assert re.search(fault.says, outcome.text, re.DOTALL), outcome.text
    assert outcome.code == fault.code
    assert "Traceback" not in outcome.text
    fault.survivor(ground)


def test_page_is_the_table() -> None:
    assert len(FAULTS) >= 30
    assert PAGE.read_text() == as_markdown(), "write it anew: python -m tests.faults.table"

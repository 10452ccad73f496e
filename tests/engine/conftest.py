"""What the tests of whole runs share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engine.support import make_dataset, write_config


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A toy model on a toy data set."""
    return write_config(tmp_path, make_dataset(tmp_path / "data"))

"""The presets of projects/persistence leave room for a user's own choice of data sets."""

from __future__ import annotations

from pathlib import Path

import pytest

from vidseg.config import load_config
from vidseg.data.loader import test_mapper_kind as mapper_kind_of

PRESETS = sorted((Path(__file__).parents[3] / "projects" / "persistence").glob("*.yaml"))


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_one_test_set_can_be_named_alone(path: Path) -> None:
    name = load_config(str(path), []).DATASETS.TEST[1]
    cfg = load_config(str(path), ["DATASETS.TEST", f"[{name}]"])
    assert mapper_kind_of(cfg, name) == "object_tokens"

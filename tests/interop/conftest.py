"""Tests against the real detectron2 are skipped where it lacks something that it needs."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _importable(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("detectron2") is None:
        return
    try:
        import detectron2.engine
        import detectron2.evaluation  # noqa: F401
    except ImportError as error:
        pytest.skip(f"detectron2 is there, but cannot be imported: {error}")

"""Every config file that is shipped loads, survives a round trip and builds on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from vidseg.config import get_cfg, load_config
from vidseg.errors import DataError

CHECKOUT = Path(__file__).resolve().parents[1]
FILES = sorted(
    file
    for root in ("projects", "configs", "examples")
    for pattern in ("*.yaml", "*.yml")
    for file in (CHECKOUT / root).rglob(pattern)
)


def name_of(file: Path) -> str:
    return str(file.relative_to(CHECKOUT))


def is_recipe(file: Path) -> bool:
    """Tells recipes for public data, whose models are of full size, from those for a CPU."""
    return "configs" in file.relative_to(CHECKOUT / file.relative_to(CHECKOUT).parts[0]).parts


def test_there_are_some() -> None:
    assert CHECKOUT / "projects" / "dvis_daq" / "offline.yaml" in FILES
    assert CHECKOUT / "examples" / "first_minute.yaml" in FILES


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_loads_and_survives_a_round_trip(file: Path, tmp_path: Path) -> None:
    cfg = load_config(file)
    copy = tmp_path / "config.yaml"
    copy.write_text(cfg.dump())
    assert load_config(copy) == cfg
    if cfg.SOLVER.INIT_FROM:
        assert Path(cfg.SOLVER.INIT_FROM).is_file()


@pytest.mark.parametrize("file", [file for file in FILES if not is_recipe(file)], ids=name_of)
def test_builds_on_the_cpu(file: Path) -> None:
    cfg = load_config(file, ["MODEL.DEVICE", "cpu"])
    if cfg.MODEL.META_ARCHITECTURE == get_cfg().MODEL.META_ARCHITECTURE:
        pytest.skip("a base of other files, no model of its own")
    from vidseg.modeling import build_model

    try:
        model = build_model(cfg)
    except DataError as error:
        if file.parent.name != "real":
            raise
        pytest.skip(f"needs data that is not shipped: {error}")
    assert {str(parameter.device) for parameter in model.parameters()} == {"cpu"}


SEGMENTERS = [
    f for f in FILES if is_recipe(f) and "dvis_daq" in f.parts and f.parent.name != "base"
]


@pytest.mark.parametrize("file", SEGMENTERS, ids=name_of)
def test_segmenters_of_full_size_build_without_memory(file: Path) -> None:
    import torch

    from vidseg.modeling import build_model

    cfg = load_config(file, ["MODEL.DEVICE", "meta"])
    with torch.device("meta"):
        model = build_model(cfg)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    queries = cfg.MODEL.MASK_FORMER.NUM_OBJECT_QUERIES
    num_classes = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    assert shapes["sem_seg_head.predictor.query_feat.weight"] == (queries, 256)
    assert shapes["sem_seg_head.predictor.class_embed.weight"] == (num_classes + 1, 256)

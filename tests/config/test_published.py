"""Published configs load unchanged; our defaults are the published ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.golden_utils import GOLDEN, flat, plain
from vidseg.config import load_config
from vidseg.config.load import _Builder
from vidseg.config.node import leaves
from vidseg.config.published import PUBLISHED
from vidseg.config.source import Assignment

RESOLVED = GOLDEN / "dvis_daq_training" / "config_resolved"
CONFIGS = sorted((GOLDEN / "dvis_daq").glob("*/*config.yaml"))


def test_defaults_are_the_published_ones() -> None:
    published = dict(flat(json.loads((RESOLVED / "defaults.json").read_text())))
    ours = dict(leaves(load_config(None, [], ["dvis_daq"])))
    assert ours.pop("MODEL.DEVICE") == "auto"
    del published["MODEL.DEVICE"]
    for key, expected in published.items():
        value = ours[key] if key in ours else PUBLISHED[key].default
        assert plain(value) == expected, key
        assert type(plain(value)) is type(expected), key
    assert not set(PUBLISHED) & set(ours)
    assert set(PUBLISHED) <= set(published)


def test_every_published_file_is_accepted() -> None:
    files = json.loads((RESOLVED / "resolved.json").read_text())
    for name, tree in files.items():
        if "__error__" in tree:  # its _BASE_ does not exist, in the published repository either
            continue
        builder = _Builder([])
        for key, value in flat(tree):
            builder.assign(Assignment(key, value, name))
        cfg = builder.finish()
        for key, value in flat(tree):
            if cfg.has(key):
                assert plain(cfg.lookup(key)) == value, (name, key)
            else:
                assert plain(builder.ignored[key]) == value, (name, key)


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: f"{file.parent.name}-{file.name}")
def test_configs_of_recorded_cases_load(file: Path) -> None:
    assert load_config(file).MODEL.META_ARCHITECTURE


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("META_ARCHITECTURE", "DVIS_Plus_online", r"'DVIS_Plus_online' is not registered; nearest"),
        ("MASK_FORMER.TEST.TASK", "vps", r"TASK 'vps' is not supported; set vis$"),
    ],
)
def test_models_of_sibling_systems_load_and_say_that_they_are_not_here(
    key: str, value: str, message: str
) -> None:
    from vidseg.errors import UserError
    from vidseg.modeling import build_model

    cfg = load_config(CONFIGS[0], ["MODEL.DEVICE", "meta", f"MODEL.{key}", value])
    with pytest.raises(UserError, match=message) as caught:
        build_model(cfg)
    assert "\n" not in str(caught.value)

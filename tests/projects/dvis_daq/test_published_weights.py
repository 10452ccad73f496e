"""Published checkpoints of every stage load into every later one, and the report says why."""

from __future__ import annotations

import gzip
import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.golden_utils import GOLDEN
from vidseg.checkpoint import check_complete, load_weights
from vidseg.config import load_config
from vidseg.errors import UserError
from vidseg.modeling import build_model

PROJECT = Path(__file__).resolve().parents[3] / "projects" / "dvis_daq"


def model_of(stage: str, *overrides: str) -> nn.Module:
    return build_model(load_config(PROJECT / f"{stage}.yaml", ["MODEL.DEVICE", "cpu", *overrides]))


def spaced(text: str) -> list[str]:
    return [re.sub(" {2,}", " | ", line.strip()) for line in text.splitlines()]


@pytest.mark.parametrize(
    ("published", "recipe"),
    [
        ("ovis_DAQ_Online_R50", "ovis/r50/online"),
        ("ovis_DAQ_Offline_R50", "ovis/r50/offline"),
        ("ovis_DAQ_Online_SwinL", "ovis/swin_l/online"),
        ("ovis_DAQ_Offline_VitAdapterL", "ovis/vit_l/offline"),
        ("ytvis19_DAQ_Online_R50", "ytvis19/r50/online"),
        ("ytvis19_DAQ_Offline_VitAdapterL", "ytvis19/vit_l/offline"),
    ],
)
def test_published_names_and_shapes_are_those_of_the_recipe(published: str, recipe: str) -> None:
    cfg = load_config(PROJECT / "configs" / f"{recipe}.yaml", ["MODEL.DEVICE", "meta"])
    with torch.device("meta"):
        model = build_model(cfg)
    file = GOLDEN / "dvis_daq" / "official_keys" / f"{published}.json.gz"
    theirs = {
        key: tuple(shape) for key, shape, *_ in json.loads(gzip.decompress(file.read_bytes()))
    }
    ours = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert sorted(ours.keys() - theirs.keys()) == []
    assert sorted(theirs.keys() - ours.keys()) == []
    assert ours == theirs


@pytest.fixture(scope="module")
def mask2former(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model-zoo file of another class count and query count, with names of the first format."""
    source = model_of(
        "segmenter",
        *("MODEL.SEM_SEG_HEAD.NUM_CLASSES", "80", "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES", "10"),
    )
    arrays = {
        name.replace("query_feat", "static_query"): value.numpy()
        for name, value in source.state_dict().items()
        if "num_batches_tracked" not in name
    }
    arrays["criterion.empty_weight"] = np.ones(81, np.float32)
    path = tmp_path_factory.mktemp("zoo") / "model_final.pkl"
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "third party"}))
    return path


def test_image_weights_start_the_segmenter(
    mask2former: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = model_of("segmenter")
    report = load_weights(model, mask2former)
    assert sorted(spaced(report.summary())[1:]) == [
        "not in the file | backbone (20) | BatchNorm counters",
        "other shape | criterion (1) | another class count: 80 in the file, 5 here",
        "other shape | sem_seg_head.predictor.class_embed (2) | "
        "another class count: 80 in the file, 5 here",
        "other shape | sem_seg_head.predictor.query_embed (1) | "
        "another number of queries: 10 in the file, 12 here",
        "other shape | sem_seg_head.predictor.query_feat (1) | "
        "another number of queries: 10 in the file, 12 here",
    ]
    assert "knows 80 classes, this model 5 (MODEL.SEM_SEG_HEAD.NUM_CLASSES)" in caplog.text
    with pytest.raises(UserError, match=r"knows 80 classes and .* is 5; set it to 80, or use"):
        check_complete(report, model, mask2former)


def test_queries_of_another_number_are_not_evaluated(tmp_path: Path) -> None:
    torch.save(model_of("segmenter").state_dict(), tmp_path / "w.pth")
    model = model_of("segmenter", "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES", "10")
    with pytest.raises(
        UserError, match=r"w\.pth has other shapes for .*query_feat \(1\) of FrameSegmenter"
    ):
        check_complete(load_weights(model, tmp_path / "w.pth"), model, tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("before", "after", "part"),
    [("segmenter", "online", "tracker"), ("online", "offline", "refiner")],
)
def test_each_stage_starts_from_the_one_before(before: str, after: str, part: str) -> None:
    model = model_of(after)
    report = load_weights(model, model_of(before).state_dict())
    assert report.mismatched == {}
    lines = [line.split(" | ") for line in spaced(report.summary())[1:]]
    reason = f"a file of an earlier stage has no {part}: expected"
    assert [row[1].split()[0] for row in lines if row[2] == reason] == [part]
    assert {row[2] for row in lines} <= {
        reason,
        "of the loss, set by the config",
        "BatchNorm counters",
    }


def test_later_stage_gives_an_earlier_one_its_part() -> None:
    model = model_of("online")
    report = load_weights(model, model_of("offline").state_dict())
    assert (report.missing, report.mismatched) == ([], {})
    assert {name.partition(".")[0] for name in report.unexpected} == {"refiner"}

"""Data sets in catalogs of detectron2's, clips for its loaders, scores for its evaluation."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.engine.support import make_dataset
from tests.interop import fake_parts
from tests.interop.real import small_cfg
from vidseg import rle
from vidseg.data import DatasetCatalog
from vidseg.data import build_test_loader as our_test_loader
from vidseg.data import build_train_loader as our_train_loader
from vidseg.engine.evaluate import evaluate_model
from vidseg.errors import ConfigError, DataError, UserError
from vidseg.interop.detectron2.datasets import register_datasets
from vidseg.interop.detectron2.evaluation import adapt_evaluator, build_evaluator
from vidseg.interop.detectron2.loading import (
    VideoDatasetMapper,
    build_test_loader,
    build_train_loader,
)
from vidseg.interop.detectron2.samples import adapt_model, to_sample
from vidseg.modeling import build_model


@pytest.fixture(autouse=True)
def theirs(monkeypatch: pytest.MonkeyPatch) -> Any:
    fake_parts.install(monkeypatch)
    return sys.modules["detectron2.data"]


@pytest.fixture
def json_file(tmp_path: Path) -> str:
    return str(make_dataset(tmp_path / "data", num_videos=3))


def changed(json_file: str, **values: Any) -> str:
    """Gives the data set again, with other values in all its annotations."""
    content = json.loads(Path(json_file).read_text())
    for annotation in content["annotations"]:
        annotation.update(values)
    path = Path(json_file).with_name("changed.json")
    path.write_text(json.dumps(content))
    return str(path)


def test_videos(theirs: Any, json_file: str) -> None:
    assert register_datasets(json_file) == [json_file]
    assert register_datasets([json_file]) == [json_file]  # again
    dicts = theirs.DatasetCatalog.get(json_file)
    records = DatasetCatalog.get(json_file)
    assert [d["video_id"] for d in dicts] == [1, 2, 3]
    first = dicts[0]
    for key in ("file_names", "height", "width", "length"):
        assert first[key] == records[0][key]
    (item,) = first["annotations"][2]
    assert (item["id"], item["category_id"], item["iscrowd"]) == (1, 0, 0)
    assert (item["bbox"], item["bbox_mode"]) == ([4, 4, 16, 16], 1)
    assert "bbox_mode" not in records[0]["annotations"][2][0]  # ours stay as they were
    about = theirs.MetadataCatalog.get(json_file)
    assert about.thing_classes == ["square"]
    assert about.thing_dataset_id_to_contiguous_id == {1: 0}
    assert (about.evaluator_type, about.json_file) == ("ytvis", json_file)


def test_images(theirs: Any, json_file: str) -> None:
    (name,) = register_datasets([json_file], layout="image")
    assert name == f"{json_file}_images"
    assert register_datasets([json_file]) == [json_file]  # both stand side by side
    dicts = theirs.DatasetCatalog.get(name)
    assert [d["image_id"] for d in dicts] == list(range(9))
    assert [(d["video_id"], d["frame_index"]) for d in dicts[2:4]] == [(1, 2), (2, 0)]
    assert Path(dicts[3]["file_name"]).is_file()
    (item,) = dicts[3]["annotations"]
    assert item["track_id"] == 2
    assert "id" not in item
    about = theirs.MetadataCatalog.get(name)
    assert about.evaluator_type == "coco"
    assert not hasattr(about, "json_file")


def test_single_images_keep_their_ids(theirs: Any, tmp_path: Path) -> None:
    make_dataset(tmp_path, num_videos=1)
    content = {
        "images": [{"id": 77, "file_name": "1/0.png", "height": 24, "width": 32}],
        "categories": [{"id": 5, "name": "square"}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(content))
    (name,) = register_datasets(str(tmp_path / "coco.json"), layout="image")
    (item,) = theirs.DatasetCatalog.get(name)
    assert item["image_id"] == 77
    assert "annotations" not in item  # a test split
    assert "video_id" not in item
    (video,) = theirs.DatasetCatalog.get(register_datasets(str(tmp_path / "coco.json"))[0])
    assert "annotations" not in video


def test_boxes_and_masks_that_they_want(theirs: Any, json_file: str) -> None:
    mask = np.zeros((24, 32), dtype=bool)
    mask[3:7, 10:20] = True
    counts = [10 * 24 + 3, *[4, 20] * 9, 4, 17 + 12 * 24]
    runs = {"size": [24, 32], "counts": counts}
    name = changed(
        json_file, segmentations=[runs, None, rle.to_text(rle.encode(mask))], bboxes=None
    )
    register_datasets(name)
    frames = theirs.DatasetCatalog.get(name)[0]["annotations"]
    assert [len(frame) for frame in frames] == [1, 0, 1]
    for item in (frames[0][0], frames[2][0]):
        assert item["bbox"] == [10, 3, 10, 4]
        assert isinstance(item["segmentation"]["counts"], bytes)
        assert np.array_equal(rle.decode(item["segmentation"]), mask)


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Registers a record that no reader of ours has checked, as ``made``."""
    monkeypatch.setattr(DatasetCatalog, "_entries", dict(DatasetCatalog._entries))

    def register(**more: Any) -> None:
        record = {"video_id": 4, "file_names": [], "length": 1, "height": 4, "width": 4, **more}
        DatasetCatalog.register("made", lambda: [record], classes=["a"], category_ids=[1])

    return register


def test_a_broken_mask_is_told(theirs: Any, own: Any) -> None:
    item = {"id": 9, "category_id": 0, "iscrowd": 0, "bbox": None}
    own(annotations=[[{**item, "segmentation": {"size": [4, 4], "counts": [1]}}]])
    register_datasets("made")
    with pytest.raises(DataError, match=r"data set: annotation 9: segmentation: .* covers 1 pix"):
        theirs.DatasetCatalog.get("made")


def test_public_names_are_not_read_before_they_are_used(
    theirs: Any, caplog: pytest.LogCaptureFixture
) -> None:
    theirs.DatasetCatalog.register("ovis_train", list)  # as the video systems do
    with caplog.at_level(logging.WARNING):
        names = register_datasets(["ytvis_2019_val", "ovis_train"])
    assert names == ["ytvis_2019_val", "vidseg.ovis_train"]
    assert caplog.messages == [
        "detectron2 has a data set ovis_train already; vidseg's is vidseg.ovis_train"
    ]
    assert theirs.DatasetCatalog.get("ovis_train") == []
    assert len(theirs.MetadataCatalog.get("vidseg.ovis_train").thing_classes) == 25
    with pytest.raises(DataError, match=r"ytvis_2019/valid.json is missing"):
        theirs.DatasetCatalog.get("ytvis_2019_val")


def test_what_cannot_be_registered(tmp_path: Path, theirs: Any) -> None:
    with pytest.raises(DataError, match="no data set is called 'ytvis_2018'"):
        register_datasets(["ytvis_2018"])
    with pytest.raises(ConfigError, match="no layout 'clip'; choose video or image"):
        register_datasets([], layout="clip")
    np.save(tmp_path / "a.npy", np.zeros((4, 3), np.float32))
    with pytest.raises(DataError, match="holds features, which detectron2 has no form for"):
        register_datasets(str(tmp_path))
    assert not theirs.DatasetCatalog.list()


def test_generated_videos_are_no_images(theirs: Any, own: Any) -> None:
    own()
    register_datasets("made", layout="image")
    with pytest.raises(DataError, match="made: video 4 has no image files; register it as videos"):
        theirs.DatasetCatalog.get("made_images")


# Clips


def test_mapper_makes_clips_and_videos(theirs: Any, json_file: str) -> None:
    cfg = small_cfg(INPUT__FORMAT="BGR")
    register_datasets(json_file)
    record = theirs.DatasetCatalog.get(json_file)[1]
    before = json.dumps(record, default=str)
    clip = VideoDatasetMapper(cfg, is_train=True)(record)
    assert clip is not None
    assert [tuple(frame.shape) for frame in clip["image"]] == [(3, 24, 32)] * 2
    assert [frame.gt_ids.tolist() for frame in clip["instances"]] == [[0], [0]]
    assert (clip["video_id"], clip["length"], clip["video_len"]) == (2, 3, 3)
    assert json.dumps(record, default=str) == before

    video = VideoDatasetMapper(cfg, is_train=False)(record)
    assert video is not None
    assert video["instances"] == []
    ours = next(s for (s,) in our_test_loader(cfg, json_file) if s["video_id"] == 2)
    assert to_sample(video, image_format="BGR")["frames"].equal(ours["frames"])


def test_mapper_draws_as_torch_is_seeded(theirs: Any, json_file: str) -> None:
    mapper = VideoDatasetMapper(small_cfg(), is_train=True)
    register_datasets(json_file)
    record = theirs.DatasetCatalog.get(json_file)[0]

    def drawn(seed: int) -> list[Any]:
        torch.manual_seed(seed)
        return [mapper(record)["frame_idx"] for _ in range(6)]  # type: ignore[index]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_clips_without_objects_are_given_up(theirs: Any, json_file: str) -> None:
    register_datasets(json_file)
    record = {**theirs.DatasetCatalog.get(json_file)[0], "annotations": [[], [], []]}
    assert VideoDatasetMapper(small_cfg(), is_train=True)(record) is None
    with pytest.raises(UserError, match="DATASET_TYPE"):
        VideoDatasetMapper(small_cfg(), is_train=True, kind="video_instanse")


def test_loader_is_ours_in_their_form(json_file: str) -> None:
    cfg = small_cfg(DATASETS__TRAIN=[json_file], INPUT__FORMAT="BGR")
    pairs = zip(build_train_loader(cfg, start_iteration=3), _after(cfg, 3), strict=False)
    for _, (theirs, ours) in zip(range(2), pairs, strict=False):
        assert [item["video_id"] for item in theirs] == [sample["video_id"] for sample in ours]
        for item, sample in zip(theirs, ours, strict=True):
            back = to_sample(item, image_format="BGR")
            assert back["frames"].equal(sample["frames"])
            assert back["instances"].masks.equal(sample["instances"].masks)
            assert back["instances"].labels.equal(sample["instances"].labels)
    assert len(build_test_loader(cfg, json_file)) == 3  # type: ignore[arg-type]


def _after(cfg: Any, start: int) -> Iterable[Any]:
    return our_train_loader(cfg, start_iteration=start)


# Scores


def test_scores_are_those_of_our_engine(tmp_path: Path, json_file: str) -> None:
    cfg = small_cfg(DATASETS__TEST=[json_file])
    model = build_model(cfg).eval()
    ours = evaluate_model(cfg, model, json_file, tmp_path / "ours")
    expected = next((tmp_path / "ours" / "inference").iterdir()) / "results.json"
    adapted = adapt_model(model)
    evaluator = build_evaluator(cfg, json_file, tmp_path / "theirs")
    evaluator.reset()
    with torch.no_grad():
        for inputs in build_test_loader(cfg, json_file):
            evaluator.process(inputs, adapted(inputs))
    found = evaluator.evaluate()
    assert found["segm"] == pytest.approx(ours["segm"], nan_ok=True)
    assert json.loads((tmp_path / "theirs" / "results.json").read_text()) == json.loads(
        expected.read_text()
    )


class Recorder:
    """Stands for an evaluator."""

    def __init__(self) -> None:
        self.given: list[Any] = []

    def process(self, samples: Any, predictions: Any) -> None:
        self.given += [(s["video_id"], len(p)) for s, p in zip(samples, predictions, strict=True)]


def test_evaluators_hear_of_images_and_videos() -> None:
    recorder: Any = Recorder()
    evaluator = adapt_evaluator(recorder)
    output = {"pred_scores": [], "pred_labels": [], "pred_masks": [], "image_size": (4, 4)}
    evaluator.process([{"video_id": 3}], output)  # of a single video it comes alone
    evaluator.process([{"video_id": 4}, {"image_id": 9}], [output, output])
    evaluator.process([{"video_id": 7, "frames": 0}], ["anything"])
    assert recorder.given == [(3, 0), (4, 0), (9, 0), (7, len("anything"))]
    with pytest.raises(DataError, match="frame 2 of video 5 was predicted alone"):
        evaluator.process([{"video_id": 5, "frame_index": 2, "image_id": 1}], [output])
    with pytest.raises(DataError, match="a prediction holds sem_seg"):
        evaluator.process([{"video_id": 3}], {"sem_seg": 0})

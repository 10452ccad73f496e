"""detectron2's trainer, loaders and evaluators on our data sets and models."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.support import make_dataset
from tests.interop import real
from vidseg.checkpoint import load_weights
from vidseg.data import DatasetCatalog
from vidseg.engine.evaluate import evaluate_model
from vidseg.interop.detectron2.datasets import register_datasets
from vidseg.interop.detectron2.evaluation import build_evaluator
from vidseg.interop.detectron2.loading import (
    VideoDatasetMapper,
    build_test_loader,
    build_train_loader,
)
from vidseg.interop.detectron2.samples import adapt_model
from vidseg.modeling import build_model

pytestmark = real.MARKS


@pytest.fixture
def json_file(tmp_path: Path) -> str:
    return str(make_dataset(tmp_path / "data", num_videos=3))


@pytest.fixture(autouse=True)
def _their_catalogs() -> Any:
    """Forgets what a test registered."""
    from detectron2.data import DatasetCatalog as Theirs
    from detectron2.data import MetadataCatalog

    before = set(Theirs.list())
    yield
    for name in set(Theirs.list()) - before:
        Theirs.remove(name)
        MetadataCatalog.pop(name, None)


def their_cfg(output: Path, **values: Any) -> Any:
    from detectron2.config import get_cfg

    cfg = get_cfg()
    cfg.OUTPUT_DIR = str(output)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.WEIGHTS = ""
    cfg.INPUT.FORMAT = "RGB"
    cfg.INPUT.MASK_FORMAT = "bitmask"
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (24,), 48
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = 24, 48
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.DATALOADER.ASPECT_RATIO_GROUPING = False
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
    cfg.SOLVER.IMS_PER_BATCH = 2
    cfg.SOLVER.MAX_ITER = 2
    cfg.SOLVER.STEPS = ()
    for key, value in values.items():
        cfg.merge_from_list([key.replace("__", "."), value])
    return cfg


def trainer_of(model_cfg: Any, mapper: Any) -> Any:
    """Their trainer with our model, and their own loaders."""
    from detectron2.data import build_detection_test_loader, build_detection_train_loader
    from detectron2.engine import DefaultTrainer

    class Trainer(DefaultTrainer):
        @classmethod
        def build_model(cls, cfg: Any) -> Any:
            return adapt_model(build_model(model_cfg), max_iter=cfg.SOLVER.MAX_ITER)

        @classmethod
        def build_train_loader(cls, cfg: Any) -> Any:
            return build_detection_train_loader(cfg, mapper=mapper(True))

        @classmethod
        def build_test_loader(cls, cfg: Any, dataset_name: str) -> Any:
            return build_detection_test_loader(cfg, dataset_name, mapper=mapper(False))

        @classmethod
        def build_evaluator(cls, cfg: Any, dataset_name: str) -> Any:
            return build_evaluator(model_cfg, dataset_name, Path(cfg.OUTPUT_DIR) / "inference")

    return Trainer


def results_of(folder: Path) -> Any:
    return json.loads((folder / "results.json").read_text())


def test_their_inference_gives_the_figures_of_our_engine(tmp_path: Path, json_file: str) -> None:
    from detectron2.evaluation import inference_on_dataset

    cfg = real.small_cfg(DATASETS__TEST=[json_file], INPUT__FORMAT="BGR")
    model = build_model(cfg).eval()
    evaluate_model(cfg, model, json_file, tmp_path / "first")
    predicted = results_of(next((tmp_path / "first" / "inference").iterdir()))
    real.label_by(predicted, Path(json_file))
    # The same file under another name: the catalog keeps what it has read.
    labelled = Path(json_file).with_name("labelled.json")
    Path(json_file).rename(labelled)
    name = str(labelled)

    ours = evaluate_model(cfg, model, name, tmp_path / "ours")
    assert 0 < ours["segm"]["AP"] < 100
    expected = results_of(next((tmp_path / "ours" / "inference").iterdir()))
    runs = {
        "converted": (adapt_model(model), build_test_loader(cfg, name)),
        "direct": (model, _plain_loader(cfg, name)),
    }
    for kind, (runner, loader) in runs.items():
        evaluator = build_evaluator(cfg, name, tmp_path / kind)
        theirs = inference_on_dataset(runner, loader, evaluator)
        assert theirs["segm"] == pytest.approx(ours["segm"], abs=1e-12, nan_ok=True), kind
        assert results_of(tmp_path / kind) == expected, kind


def _plain_loader(cfg: Any, name: str) -> Any:
    from vidseg.data import build_test_loader

    return build_test_loader(cfg, name)


def test_dense_masks_alone_give_the_same_figures(tmp_path: Path, json_file: str) -> None:
    from detectron2.evaluation import inference_on_dataset

    cfg = real.small_cfg(DATASETS__TEST=[json_file])
    adapted = adapt_model(build_model(cfg).eval())

    def published(inputs: Any) -> Any:
        output = adapted(inputs)
        del output["tracks"]
        return output

    scores = []
    for number, model in enumerate((adapted, published)):
        evaluator = build_evaluator(cfg, json_file, tmp_path / str(number))
        scores.append(inference_on_dataset(model, build_test_loader(cfg, json_file), evaluator))
    assert scores[0]["segm"] == pytest.approx(scores[1]["segm"], abs=1e-9, nan_ok=True)


def test_default_trainer_on_our_videos(tmp_path: Path, json_file: str) -> None:
    cfg = real.small_cfg(DATASETS__TRAIN=[json_file], DATASETS__TEST=[json_file])
    names = register_datasets([json_file])
    theirs = their_cfg(tmp_path, DATASETS__TRAIN=tuple(names), DATASETS__TEST=tuple(names))
    trainer_class = trainer_of(cfg, lambda train: VideoDatasetMapper(cfg, is_train=train))
    trainer = trainer_class(theirs)
    start = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    places: list[Any] = []

    def note(_: Any, batches: Any) -> None:
        places.extend((s.get("iteration"), s.get("max_iter")) for s in batches[0])

    trainer.model.wrapped.register_forward_pre_hook(note)
    trainer.train()
    assert places[:4] == [(0, 2), (0, 2), (1, 2), (1, 2)]
    end = trainer.model.state_dict()
    assert any(not torch.equal(start[name], end[name]) for name in start)
    assert trainer.storage.history("total_loss").latest() > 0
    assert "segm/AP" in trainer.storage.latest()

    model = build_model(cfg)
    report = load_weights(model, tmp_path / "model_final.pth")
    assert (report.missing, report.unexpected) == ([], [])
    assert all(torch.equal(value, end[name]) for name, value in model.state_dict().items())


def test_default_trainer_goes_on_with_our_model(tmp_path: Path, json_file: str) -> None:
    cfg = real.small_cfg(DATASETS__TRAIN=[json_file])
    names = register_datasets([json_file])
    trainer_class = trainer_of(cfg, lambda train: VideoDatasetMapper(cfg, is_train=train))
    theirs = their_cfg(tmp_path, DATASETS__TRAIN=tuple(names))
    trainer_class(theirs).train()
    theirs.SOLVER.MAX_ITER = 3
    resumed = trainer_class(theirs)
    resumed.resume_or_load(resume=True)
    assert resumed.start_iter == 2
    resumed.train()
    assert resumed.iter == 3


def test_default_trainer_on_our_loader(tmp_path: Path, json_file: str) -> None:
    cfg = real.small_cfg(DATASETS__TRAIN=[json_file])
    seen = []

    class Watched(trainer_of(cfg, lambda train: None)):  # type: ignore[misc]
        @classmethod
        def build_train_loader(cls, cfg_of_theirs: Any) -> Any:
            for batch in build_train_loader(cfg):
                seen.append([item["video_id"] for item in batch])
                yield batch

    Watched(their_cfg(tmp_path)).train()
    from vidseg.data import build_train_loader as ours

    wanted = [[s["video_id"] for s in batch] for batch, _ in zip(ours(cfg), range(2), strict=False)]
    assert seen[:2] == wanted


@pytest.mark.parametrize("mask_format", ["polygon", "bitmask"])
def test_their_image_mapper_and_evaluator(tmp_path: Path, json_file: str, mask_format: str) -> None:
    from detectron2.data import DatasetMapper
    from detectron2.evaluation import COCOEvaluator, inference_on_dataset

    names = register_datasets([json_file], layout="image")
    cfg = real.small_cfg()
    theirs = their_cfg(tmp_path, DATASETS__TRAIN=tuple(names))
    theirs.DATALOADER.FILTER_EMPTY_ANNOTATIONS = True
    theirs.MODEL.MASK_ON, theirs.INPUT.MASK_FORMAT = True, mask_format
    trainer_class = trainer_of(cfg, lambda train: DatasetMapper(theirs, is_train=train))
    trainer = trainer_class(theirs)
    trainer.train()
    assert trainer.storage.history("total_loss").latest() > 0
    loader = trainer_class.build_test_loader(theirs, names[0])
    evaluator = COCOEvaluator(
        names[0], output_dir=str(tmp_path), use_fast_impl=False, distributed=False
    )
    found = inference_on_dataset(trainer.model, loader, evaluator)
    assert set(found) == {"bbox", "segm"}


def test_our_evaluator_scores_their_detector(tmp_path: Path) -> None:
    from detectron2.data import DatasetMapper, build_detection_test_loader
    from detectron2.evaluation import inference_on_dataset
    from detectron2.modeling import build_model as build_theirs

    json_file = str(make_dataset(tmp_path / "data", num_videos=2, num_frames=1))
    (name,) = register_datasets(json_file, layout="image")
    theirs = their_cfg(tmp_path, MODEL__MASK_ON=True, MODEL__RESNETS__DEPTH=18)
    theirs.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    stages = ["res2", "res3", "res4", "res5"]
    theirs.MODEL.RESNETS.OUT_FEATURES = theirs.MODEL.FPN.IN_FEATURES = stages
    theirs.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
    theirs.MODEL.RPN.IN_FEATURES = theirs.MODEL.ROI_HEADS.IN_FEATURES = ["p2", "p3"]
    theirs.MODEL.ANCHOR_GENERATOR.SIZES = [[8], [16]]
    theirs.MODEL.ROI_HEADS.NAME = "StandardROIHeads"
    theirs.MODEL.ROI_HEADS.NUM_CLASSES = 1
    theirs.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    theirs.MODEL.ROI_BOX_HEAD.NAME = "FastRCNNConvFCHead"
    theirs.MODEL.ROI_BOX_HEAD.NUM_FC, theirs.MODEL.ROI_BOX_HEAD.FC_DIM = 1, 16
    theirs.MODEL.ROI_MASK_HEAD.NAME = "MaskRCNNConvUpsampleHead"
    theirs.MODEL.ROI_MASK_HEAD.NUM_CONV, theirs.MODEL.ROI_MASK_HEAD.CONV_DIM = 1, 16
    loader = build_detection_test_loader(theirs, name, mapper=DatasetMapper(theirs, is_train=False))
    evaluator = build_evaluator(real.small_cfg(), json_file, tmp_path / "scores")
    found = inference_on_dataset(build_theirs(theirs), loader, evaluator)
    assert 0 <= found["segm"]["AR100"] <= 100
    results = results_of(tmp_path / "scores")
    assert {track["video_id"] for track in results} == {1, 2}
    assert all(len(track["segmentations"]) == 1 for track in results)


def test_frames_of_a_video_one_by_one_are_no_tracks(tmp_path: Path, json_file: str) -> None:
    from detectron2.data import DatasetMapper, build_detection_test_loader

    from vidseg.errors import DataError

    (name,) = register_datasets(json_file, layout="image")
    theirs = their_cfg(tmp_path)
    loader = build_detection_test_loader(theirs, name, mapper=DatasetMapper(theirs, is_train=False))
    cfg = real.small_cfg()
    inputs = next(iter(loader))
    evaluator = build_evaluator(cfg, json_file, tmp_path)
    evaluator.reset()
    with pytest.raises(DataError, match="register the data set with layout='video'"):
        evaluator.process(inputs, adapt_model(build_model(cfg).eval())(inputs))


def test_a_name_of_theirs_stays_theirs(caplog: pytest.LogCaptureFixture) -> None:
    from detectron2.data import DatasetCatalog as Theirs
    from detectron2.data import MetadataCatalog

    Theirs.register("ytvis_2019_train", list)  # as the video systems do when they are imported
    with caplog.at_level(logging.WARNING):
        assert register_datasets(["ytvis_2019_train"]) == ["vidseg.ytvis_2019_train"]
        assert register_datasets("ytvis_2019_train") == ["vidseg.ytvis_2019_train"]
    assert len(caplog.records) == 1
    assert Theirs.get("ytvis_2019_train") == []
    about = MetadataCatalog.get("vidseg.ytvis_2019_train")
    assert about.thing_classes == DatasetCatalog.metadata("ytvis_2019_train").classes
    assert about.thing_dataset_id_to_contiguous_id[40] == 39
    assert about.evaluator_type == "ytvis"
    assert about.json_file.endswith("ytvis_2019/train.json")

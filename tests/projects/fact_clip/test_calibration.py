"""Gamma: chosen on pretended unseen classes when training ends, and carried to the next stage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.engine.support import weights
from vidseg.config import get_cfg, load_config
from vidseg.engine.chain import plan_stages
from vidseg.engine.setup import run_stages
from vidseg.errors import DataError
from vidseg.projects.fact_clip import add_config
from vidseg.projects.fact_clip.calibration import Calibration
from vidseg.projects.fact_clip.class_split import ClassSplit, held_out_classes
from vidseg.projects.fact_clip.text_matching import ZeroShot

CLASSES = ("background", "cut_apple", "cut_milk", "pour_apple", "pour_milk")
WIDTH = 6

STAGE = """
_BASE_: {base}
MODEL: {{DEVICE: cpu}}
DATASETS: {{TRAIN: ['{data}/splits/train.bundle'], TEST: ['{data}/splits/test.bundle']}}
FACT: {{ntoken: 12}}
Bi: {{hid_dim: 16, a_nhead: 2, a_ffdim: 16, a_layers: 1, a_dim: 8, f_layers: 2, f_dim: 8}}
Bu: {{f_layers: 2}}
BU: {{f_layers: 2}}
CLIP:
  embed_dim: 32
  unseen: [pour_milk]
  {clip}
SOLVER: {{MAX_ITER: 6, IMS_PER_BATCH: 2, WARMUP_ITERS: 1, LOG_PERIOD: 3{solver}}}
TEST: {{ACTIONS: {{NUM_PICTURES: 0}}}}
WRITERS: [jsonl]
OUTPUT_DIR: {output}
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for name in ("features", "groundTruth", "splits"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 3), ("test", 2)):
        names = [f"{split}{number}" for number in range(count)]
        (folder / "splits" / f"{split}.bundle").write_text("\n".join(names))
        for name in names:
            labels = np.repeat(rng.permutation(5), 6)
            features = rng.standard_normal((len(labels), WIDTH)) + labels[:, None]
            np.save(folder / "features" / f"{name}.npy", features.astype(np.float32))
            lines = "\n".join(CLASSES[label] for label in labels)
            (folder / "groundTruth" / f"{name}.txt").write_text(lines)
    mapping = "\n".join(f"{number} {name}" for number, name in enumerate(CLASSES))
    (folder / "mapping.txt").write_text(mapping)
    return folder


def write_stage(data: Path, name: str, base: str, clip: str, solver: str = "") -> Path:
    path = data.parent / f"{name}.yaml"
    preset = Path(__file__).resolve().parents[3] / "projects" / "fact_clip" / base
    output = data.parent / name
    path.write_text(STAGE.format(base=preset, data=data, clip=clip, solver=solver, output=output))
    return path


def run(config: Path, *overrides: str) -> int:
    stages = plan_stages(str(config), list(overrides), ["fact_clip"])
    return run_stages(stages, plugins=["fact_clip"])


@pytest.fixture
def chain(data: Path) -> Path:
    calibration = f"pseudo_unseen: [cut_milk]\n  calibration_set: '{data}/splits/val.bundle'"
    write_stage(data, "first", "zero_shot_calibration.yaml", calibration)
    return write_stage(
        data,
        "second",
        "zero_shot_calibration.yaml",
        "pseudo_unseen: []\n  calibration_set: ''",
        ", INIT_FROM: first.yaml",
    )


@pytest.mark.slow
def test_gamma_of_the_first_stage_is_that_of_the_second(chain: Path) -> None:
    assert run(chain) == 0
    chosen = weights(chain.parent / "first")["alignment.chosen_gamma"]
    assert chosen.isfinite()
    assert torch.equal(weights(chain.parent / "second")["alignment.chosen_gamma"], chosen)
    (metrics,) = (chain.parent / "second").glob("inference/*/metrics.json")
    values = json.loads(metrics.read_text())
    assert values["zero_shot/gamma"] == pytest.approx(float(chosen))
    assert {"zero_shot/H", "zero_shot/H_best", "zero_shot/AUSUC"} <= values.keys()


def test_gamma_can_be_set_on_the_command_line() -> None:
    preset = Path(__file__).resolve().parents[3] / "projects" / "fact_clip" / "zero_shot.yaml"
    assert load_config(preset).CLIP.gamma is None
    assert load_config(preset, ["CLIP.gamma", "0.125"]).CLIP.gamma == 0.125


def test_videos_without_the_classes_are_told_before_the_first_step(data: Path) -> None:
    for file in (data / "groundTruth").glob("val*.txt"):
        file.write_text(file.read_text().replace("cut_milk", "cut_apple"))
    clip = f"pseudo_unseen: [cut_milk]\n  calibration_set: '{data}/splits/val.bundle'"
    config = write_stage(data, "first", "zero_shot_calibration.yaml", clip)
    with pytest.raises(DataError, match=r"val\.bundle shows none of the classes.*\(cut_milk\)"):
        run(config)
    saved = [path.name for path in (data.parent / "first").glob("checkpoint_*.pth")]
    assert saved in ([], ["checkpoint_0000000.pth"])


def calibration(samples: list[dict[str, Any]], pseudo: tuple[int, ...] = (2,)) -> Calibration:
    split = ClassSplit(CLASSES, (4,), pseudo)
    return Calibration("val", split, (0,), lambda: iter([[sample] for sample in samples]))


def test_the_best_handicap_between_seen_and_pretended_is_found() -> None:
    """Pretended class 2 needs gamma above 0.2; above 0.5 the seen class 1 would be lost."""
    labels = torch.tensor([1, 1, 2, 2, 4, 0])
    cosine = torch.tensor(
        [
            [0.0, 0.9, 0.4, 0.0],
            [0.0, 0.9, 0.4, 0.0],
            [0.0, 0.7, 0.5, 0.0],
            [0.0, 0.7, 0.5, 0.0],
            [0.0, 0.7, 0.0, 0.0],
            [0.9, 0.0, 0.0, 0.0],
        ]
    )
    seen = torch.tensor([True, True, False, True])
    found = calibration([{"video_id": 1, "labels": labels}])
    assert found.candidates == [0, 1, 2, 3]
    assert found.target == {2}

    def match(sample: dict[str, Any]) -> ZeroShot:
        names = [CLASSES[number] for number in found.candidates]
        return ZeroShot(cosine.argmax(1), cosine, cosine.softmax(1), names, 0.0, seen)

    assert 0.2 < found.choose(match) < 0.5


def test_without_pretended_classes_the_unseen_ones_are_taken() -> None:
    found = calibration([], pseudo=())
    assert found.target == {4}
    assert found.candidates == [0, 1, 2, 3, 4]


def test_videos_without_labels_are_named() -> None:
    with pytest.raises(DataError, match="video 7 has no labels to choose gamma by"):
        calibration([{"video_id": 7}]).choose(lambda sample: None)  # type: ignore


def held_out(*overrides: Any) -> frozenset[int]:
    cfg = get_cfg()
    add_config(cfg)
    cfg.merge_from_list(["MODEL.META_ARCHITECTURE", "FACT_CLIP", *overrides])
    return held_out_classes(cfg, CLASSES)


def test_labels_are_held_out_of_models_that_match_text_only() -> None:
    unseen = ("CLIP.unseen", ["cut_milk"], "CLIP.pseudo_unseen", ["pour_apple"])
    assert held_out(*unseen) == {2, 3}
    assert held_out(*unseen, "CLIP.enable", False) == frozenset()
    assert held_out(*unseen, "MODEL.META_ARCHITECTURE", "FACT") == frozenset()
    assert held_out("CLIP.unseen", ["a class of another set", "cut_milk"]) == {2}

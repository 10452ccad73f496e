"""Published FACT configs load unchanged and mean here what they mean there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from vidseg.config import CfgNode, load_config
from vidseg.engine.chain import plan_stages
from vidseg.engine.setup import run_stages
from vidseg.errors import ConfigError
from vidseg.modeling import build_model


def block(**changes: Any) -> dict[str, Any]:
    keys = ("a_dim", "a_ffdim", "dropout", "f", "f_dim", "f_ln", "f_ngp", "hid_dim")
    return {"a": "sa", "a_layers": 1, "a_nhead": 8, **dict.fromkeys(keys), **changes}


def published(
    dataset: str,
    *,
    bi: dict[str, Any],
    fact: dict[str, Any],
    loss: dict[str, Any],
    masking: tuple[bool, int, float],
    training: dict[str, Any],
    aux: tuple[int, int],
    split: str = "split1",
    layers: tuple[int, int] = (10, 10),
    null: Any = None,
) -> dict[str, Any]:
    """Gives a file with all keys that the published ones have."""
    update = {key: null if value is None else value for key, value in block().items()}
    use, t, p = masking
    return {
        "BU": {**update, "f_layers": layers[1], "s_layers": 1},
        "Bi": {
            **{"a": "sca", "a_ffdim": 512, "a_layers": 6, "a_nhead": 8, "dropout": 0.0},
            **{"f_layers": 10, "f_ln": False, "f_ngp": 1, "hid_dim": 512},
            **bi,
        },
        "Bu": {**update, "f_layers": layers[0]},
        "FACT": {"trans": False, "fpos": False, **fact},
        "Loss": {"a2fc": 1.0, "bgw": 1.0, "match": "o2o", "nullw": -1.0, "pc": 0.2, "sw": 5.0}
        | loss,
        "TM": {"inplace": True, "m": 5, "p": p, "t": t, "use": use},
        "aux": {
            **{"debug": False, "eval_every": aux[0], "gpu": 0, "mark": ""},
            **{"print_every": aux[1], "resume": "max", "runid": 0},
        },
        "clip_grad_norm": 10.0,
        "dataset": dataset,
        "eval_bg": False,
        "lr": 0.0001,
        "momentum": 0.0,
        "optimizer": "Adam",
        "split": split,
        "weight_decay": 0.0,
        **training,
    }


WIDE, NARROW = {"a_dim": 256, "f": "m2", "f_dim": 256}, {"a_dim": 128, "f": "m", "f_dim": 128}
FILES = {
    "breakfast": published(
        "breakfast",
        bi={"a_dim": 512, "f": "m2", "f_dim": 512},
        fact={"block": "iuUU", "cmr": 0.3, "ntoken": 60, "mwt": 0.1},
        loss={},
        masking=(True, 30, 0.05),
        training={"batch_size": 4, "epoch": 150, "lr_decay": 80, "sr": 1, "eval_bg": True},
        aux=(2000, 1000),
    ),
    "gtea": published(
        "gtea",
        bi={**NARROW, "dropout": 0.2},
        fact={"block": "iuU", "cmr": 0.5, "ntoken": 60, "mwt": 0.1},
        loss={},
        masking=(True, 60, 0.1),
        training={"batch_size": 1, "epoch": 400, "lr_decay": 250, "sr": 1},
        aux=(300, 100),
    ),
    "egoprocel": published(
        "ego",
        bi=WIDE,
        fact={"block": "iUUU", "cmr": 0.3, "ntoken": 200, "mwt": 0.9},
        loss={"bgw": 0.5},
        masking=(False, 30, 0.05),
        training={"batch_size": 1, "epoch": 350, "lr_decay": 250, "sr": 3},
        aux=(10000, 4000),
    ),
    "epic-kitchens": published(
        "epic",
        bi=WIDE,
        fact={"block": "IUUU", "cmr": 0.3, "ntoken": 300, "mwt": 0.1, "fpos": True},
        loss={"match": "o2m", "bgw": 0.5, "nullw": 0.05},
        masking=(False, 30, 0.05),
        training={"batch_size": 1, "epoch": 200, "lr_decay": 600, "sr": 4},
        aux=(1000, 200),
    ),
    "gtea_transcript": published(
        "gtea",
        bi={**NARROW, "dropout": 0.2, "a_layers": 3},
        fact={"block": "iuU", "cmr": 0.5, "ntoken": 0, "mwt": 0.0, "trans": True},
        loss={"match": "seq", "pc": 1.0},
        masking=(True, 60, 0.1),
        training={"batch_size": 1, "epoch": 2000, "lr_decay": -1, "sr": 1},
        aux=(900, 400),
        split="split4",
        layers=(3, 5),
        null="None",
    ),
}
# model, training set, batch, epochs, drops of the rate, background
MEANING = {
    "breakfast": ("FACT", "breakfast_split1_train", 4, 150, (80,), [0]),
    "gtea": ("FACT", "gtea_split1_train", 1, 400, (250,), [10]),
    "egoprocel": ("FACT", "egoprocel_split1_train", 1, 350, (250,), [0]),
    "epic-kitchens": ("FACTVerbNoun", "epic_kitchens_split1_train", 1, 200, (600,), [0]),
    "gtea_transcript": ("FACT", "gtea_split4_train", 1, 2000, (), [10]),
}


def load(folder: Path, content: dict[str, Any], *overrides: str) -> CfgNode:
    file = folder / "published.yaml"
    file.write_text(yaml.safe_dump(content))
    return load_config(file, list(overrides))


@pytest.mark.parametrize("name", FILES)
def test_published_file_loads_unchanged(name: str, tmp_path: Path) -> None:
    content = FILES[name]
    cfg = load(tmp_path, content)
    solver, (kind, train, batch, epochs, steps, background) = cfg.SOLVER, MEANING[name]
    assert kind == cfg.MODEL.META_ARCHITECTURE
    assert (cfg.DATASETS.TRAIN, cfg.bg_class) == ((train,), background)
    assert (train.replace("train", "test"),) == cfg.DATASETS.TEST
    assert cfg.DATASETS.DATASET_TYPE == cfg.DATASETS.DATASET_TYPE_TEST == ["action_frames"]
    assert (batch, epochs, steps) == (solver.IMS_PER_BATCH, solver.MAX_EPOCHS, solver.EPOCH_STEPS)
    assert (solver.OPTIMIZER, solver.BASE_LR, solver.STEPS) == ("ADAM", 1e-4, ())
    assert solver.WEIGHT_DECAY == solver.WEIGHT_DECAY_NORM == solver.WARMUP_ITERS == 0
    clip = solver.CLIP_GRADIENTS
    assert (clip.ENABLED, clip.CLIP_TYPE, clip.CLIP_VALUE) == (True, "full_model", 10)
    assert (
        content["aux"]["eval_every"],
        "merged/F1@50",
    ) == (cfg.TEST.EVAL_PERIOD, cfg.TEST.BEST_METRIC)
    assert content["aux"]["print_every"] == solver.LOG_PERIOD
    assert (cfg.sr, cfg.eval_bg) == (content["sr"], content["eval_bg"])
    for group in ("FACT", "Bi", "Bu", "BU", "Loss", "TM"):
        for key, value in content[group].items():
            if (group, key) != ("TM", "inplace"):
                wanted = None if value == "None" else value
                assert cfg.lookup(f"{group}.{key}") == wanted, (group, key)


@pytest.mark.parametrize(
    ("name", "n_classes", "count"),
    [
        ("breakfast", 48, 119_458_304),
        ("gtea", 11, 10_418_176),
        ("egoprocel", 131, 40_972_544),
        ("gtea_transcript", 11, 8_533_760),
    ],
)
def test_published_file_builds_the_published_model(
    name: str, n_classes: int, count: int, tmp_path: Path
) -> None:
    words = ("FACT.input_dim", "2048", "FACT.n_classes", str(n_classes), "MODEL.DEVICE", "meta")
    model = build_model(load(tmp_path, FILES[name], *words))
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_published_file_trains_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    for folder in ("features", "gt", "splits"):
        (tmp_path / folder).mkdir()
    for name in "abc":
        labels = np.repeat(rng.permutation(3), 8)
        features = np.eye(3)[labels] + 0.1 * rng.normal(size=(24, 3))
        np.save(tmp_path / "features" / f"{name}.npy", features.T)  # (D, T)
        lines = "".join(f"{'xyz'[label]}\n" for label in labels[:-1])  # one is missing
        (tmp_path / "gt" / f"{name}.txt").write_text(lines)
    (tmp_path / "map.txt").write_text("0 x\n1 y\n2 z\n")
    (tmp_path / "splits" / "train.s1.bundle").write_text("a.txt\nb.txt\n")
    (tmp_path / "splits" / "test.s1.bundle").write_text("c.txt\n")
    content = FILES["gtea"] | {
        **{"dataset": "toys", "split": "s1", "split_path": str(tmp_path / "splits")},
        **{"feature_path": str(tmp_path / "features"), "feature_transpose": True},
        **{"groundTruth_path": str(tmp_path / "gt"), "map_fname": str(tmp_path / "map.txt")},
        **{"batch_size": 2, "epoch": 2, "lr_decay": 1},
    }
    small = {"hid_dim": 16, "a_dim": 8, "a_nhead": 2, "a_ffdim": 8, "f_dim": 8, "f_layers": 2}
    content["Bi"] = {**content["Bi"], **small, "a_layers": 1}
    content["Bu"] = {**content["Bu"], "a_nhead": None, "f_layers": 2}
    content["BU"] = {**content["BU"], "a_nhead": None, "f_layers": 2}
    (tmp_path / "toys.yaml").write_text(yaml.safe_dump(content))
    words = ["OUTPUT_DIR", str(tmp_path / "out"), "DATALOADER.NUM_WORKERS", "0"]
    stages = plan_stages(str(tmp_path / "toys.yaml"), [*words, "MODEL.DEVICE", "cpu"])
    assert run_stages(stages) == 0
    assert "iterations per epoch: 1; MAX_ITER 2, STEPS (1,)" in capsys.readouterr().out
    results = tmp_path / "out" / "inference"
    (metrics,) = results.glob("*/metrics.json")
    assert "merged/F1@50" in metrics.read_text()


def test_what_a_file_leaves_out_has_its_published_value(tmp_path: Path) -> None:
    cfg = load(tmp_path, {"dataset": "gtea"})
    solver = cfg.SOLVER
    assert (solver.OPTIMIZER, solver.BASE_LR, solver.MOMENTUM) == ("SGD", 0.1, 0.009)
    assert (solver.MAX_EPOCHS, solver.IMS_PER_BATCH, cfg.TEST.EVAL_PERIOD) == (2, 4, 1000)
    plain = load(tmp_path, {"FACT": {"ntoken": 60}})
    assert (plain.SOLVER.OPTIMIZER, plain.SOLVER.MAX_EPOCHS) == ("ADAMW", 0)
    assert plain.DATASETS.TRAIN == ()


def test_later_assignments_win_in_either_language(tmp_path: Path) -> None:
    file = FILES["breakfast"]
    cfg = load(tmp_path, file, "split", "split3", "lr", "0.5", "SOLVER.MAX_ITER", "7")
    assert cfg.DATASETS.TEST == ("breakfast_split3_test",)
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.MAX_ITER, cfg.SOLVER.MAX_EPOCHS) == (0.5, 7, 0)
    words = ("OUTPUT_DIR", "mine", "MODEL.META_ARCHITECTURE", "FACT_CLIP", "split", "split2")
    cfg = load(tmp_path, file, *words)
    assert (cfg.OUTPUT_DIR, cfg.MODEL.META_ARCHITECTURE) == ("mine", "FACT_CLIP")
    cfg = load(tmp_path, file, "SOLVER.BASE_LR", "0.5", "lr", "2", "clip_grad_norm", "0")
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.CLIP_GRADIENTS.ENABLED) == (2, False)
    assert load(tmp_path, file, "DATASETS.TRAIN", "['a']").DATASETS.TRAIN == ("a",)


def test_data_elsewhere(tmp_path: Path) -> None:
    content = {
        **{"dataset": "kitchen", "split": "s2", "split_path": "/k/splits/", "bg_class": 3},
        **{"feature_path": "/k/i3d", "groundTruth_path": "/k/gt", "map_fname": "/k/map.txt"},
        "feature_transpose": True,
    }
    cfg = load(tmp_path, content)
    assert cfg.DATASETS.TRAIN == (
        "/k/splits/train.s2.bundle?features=/k/i3d&labels=/k/gt&mapping=/k/map.txt"
        "&transpose=1&trim=1",
    )
    assert cfg.bg_class == [3]
    cfg = load(tmp_path, {**content, "feature_transpose": False, "map_fname": None})
    path = "/k/splits/test.s2.bundle?features=/k/i3d&labels=/k/gt&trim=1"
    assert (path,) == cfg.DATASETS.TEST


def test_keys_without_effect_are_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load(tmp_path, {"aux": {"gpu": 5, "runid": 0, "debug": True}, "TM": {"inplace": True}})
    (record,) = caplog.records
    told = record.getMessage()
    assert "aux.gpu (MODEL.DEVICE chooses the device)" in told
    assert "aux.debug" in told
    assert "runid" not in told
    assert "inplace" not in told


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"lr": "fast"}, r"^lr wants float, got 'fast' \(.*published.yaml:1\)$"),
        ({"epoch": [2]}, r"^epoch wants int, got \[2\] "),
        ({"dataset": "gtea", "lr_decays": 3}, r"unknown key lr_decays .*did you mean lr_decay\?"),
    ],
)
def test_mistakes_are_told_in_published_names(
    content: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, content)

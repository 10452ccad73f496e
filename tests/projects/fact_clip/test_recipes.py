"""The recipes: published settings, published sizes, and runs on data in the published layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.golden_utils import GOLDEN, flat
from tests.projects.fact_clip.test_published import FILES, load
from vidseg.config import CfgNode, load_config
from vidseg.engine.chain import plan_stages
from vidseg.engine.setup import run_stages
from vidseg.modeling import build_model

FOLDER = Path(__file__).resolve().parents[3] / "projects" / "fact_clip" / "configs"
RECIPES = sorted(path.stem for path in FOLDER.glob("*.yaml"))

# Classes and parameters of the published networks, for features 2048 wide.
SIZES = {
    "breakfast": (48, 119_458_304),
    "gtea": (11, 10_418_176),
    "egoprocel": (130, 40_972_544),
    "gtea_transcript": (11, 8_533_760),
}
# What may differ from the published files: files of a run, and what has no effect in it.
OWN = {
    "OUTPUT_DIR",
    "SOLVER.CHECKPOINT_PERIOD",
    "SOLVER.LOG_PERIOD",
    "SOLVER.MOMENTUM",  # of SGD
    "TEST.EVALUATOR",  # the one that the data sets name
}
NO_EFFECT = {
    "epic_kitchens": {"SOLVER.EPOCH_STEPS"},  # published: after the end of training
    "gtea_transcript": {"FACT.ntoken"},
}

VIDEOS = {"train": ("a", "b"), "test": ("c",)}
PAIRS = ["none,none", "take,cup", "take,tea", "pour,tea"]
NARROW = {
    **{"hid_dim": 32, "a_dim": 16, "a_ffdim": 16, "a_nhead": 2, "a_layers": 1},
    **{"f_dim": 16, "f_layers": 3},
}


def meta_model(cfg: CfgNode) -> torch.nn.Module:
    with torch.device("meta"):
        return build_model(cfg)


def test_there_is_one_of_each() -> None:
    assert RECIPES == ["breakfast", "egoprocel", "epic_kitchens", "gtea", "gtea_transcript"]


@pytest.mark.parametrize("name", RECIPES)
def test_settings_are_the_published_ones(name: str, tmp_path: Path) -> None:
    published = dict(flat(load(tmp_path, FILES[name.replace("_kitchens", "-kitchens")])))
    found = dict(flat(load_config(FOLDER / f"{name}.yaml")))
    assert found.keys() == published.keys()
    different = {
        key
        for key, value in published.items()
        # Widths that are null are those of the block before, which a test of settings covers.
        if found[key] != value and value != "None"
    }
    assert different <= OWN | NO_EFFECT.get(name, set())


@pytest.mark.parametrize("name", SIZES)
def test_weights_are_those_of_the_published_network(name: str) -> None:
    num_classes, num_parameters = SIZES[name]
    words = ("FACT.input_dim", 2048, "FACT.n_classes", num_classes, "MODEL.DEVICE", "meta")
    model = meta_model(load_config(FOLDER / f"{name}.yaml", [str(word) for word in words]))
    assert sum(parameter.numel() for parameter in model.parameters()) == num_parameters
    recorded = json.loads((GOLDEN / "fact" / "official_keys" / f"{name}.json").read_text())
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    assert shapes == {key: shape for key, shape, _ in recorded if not key.endswith(".pe")}


def test_verbs_and_nouns_of_epic_kitchens_fit_the_published_width(tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.csv"
    lines = (f"action {n},{n % 98},{n % 301}" for n in range(400))
    pairs.write_text("\n".join(["class,verb,noun", *lines]))
    words = ("FACT.input_dim", 2048, "FACT.n_classes", 400, "FACT.verb_noun", pairs)
    cfg = load_config(
        FOLDER / "epic_kitchens.yaml", [str(word) for word in (*words, "MODEL.DEVICE", "meta")]
    )
    shapes = {key: tuple(v.shape) for key, v in meta_model(cfg).state_dict().items()}
    assert shapes["action_query"] == (300, 1, 256)
    assert shapes["block_list.0.seg_update.weight_hh_l1_reverse"] == (768, 256)
    assert shapes["block_list.3.sf_merge.0.weight"] == (256, 768)


def write_data(root: Path, name: str) -> None:
    """Writes three videos in the layout in which the recipe's data set is published."""
    folder = root / {
        "gtea_transcript": "gtea",
        "epic_kitchens": "epic-kitchens/processed",
    }.get(name, name)
    for part in ("features", "groundTruth", "splits"):
        (folder / part).mkdir(parents=True)
    is_pairs = name == "epic_kitchens"
    classes = PAIRS if is_pairs else [f"action_{number}" for number in range(12)]
    (folder / "mapping.txt").write_text("".join(f"{i} {c}\n" for i, c in enumerate(classes)))
    if is_pairs:
        (folder / "verb_mapping.txt").write_text("0 none\n1 take\n2 pour\n")
        (folder / "noun_mapping.txt").write_text("0 none\n1 cup\n2 tea\n")
    rng = np.random.default_rng(0)
    is_transposed = name not in ("egoprocel", "epic_kitchens")
    for part, videos in VIDEOS.items():
        has_bundles = name not in ("egoprocel", "epic_kitchens")
        bundle = f"splits/{part}.split{4 if name == 'gtea_transcript' else 1}.bundle"
        split = folder / (bundle if has_bundles else f"split1.{part}")
        split.write_text("\n".join(f"{video}.txt" for video in videos))
        for video in videos:
            labels = np.repeat(rng.integers(len(classes), size=5), 12)
            features = rng.standard_normal((len(labels) + 1, 8)).astype(np.float32)
            np.save(folder / f"features/{video}.npy", features.T if is_transposed else features)
            text = "\n".join(classes[label] for label in labels)
            (folder / f"groundTruth/{video}.txt").write_text(text)


@pytest.mark.parametrize("name", RECIPES)
def test_trains_and_evaluates(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_data(tmp_path, name)
    monkeypatch.setenv("VIDSEG_DATASETS", str(tmp_path))
    output = tmp_path / "output"
    small = {f"Bi.{key}": value for key, value in NARROW.items()}
    small |= {
        f"{block}.{key}": NARROW[key] for block in ("Bu", "BU") for key in ("a_nhead", "f_layers")
    }
    words = {
        **small,
        "FACT.ntoken": 12,
        "SOLVER.MAX_ITER": 1,
        "DATALOADER.NUM_WORKERS": 0,
        "MODEL.DEVICE": "cpu",
        "TEST.ACTIONS.NUM_PICTURES": 0,
        "WRITERS": "[jsonl]",
        "OUTPUT_DIR": output,
    }
    overrides = [str(word) for pair in words.items() for word in pair]
    assert run_stages(plan_stages(str(FOLDER / f"{name}.yaml"), overrides)) == 0
    losses = json.loads((output / "metrics.jsonl").read_text().splitlines()[0])
    assert np.isfinite(losses["total_loss"])
    (metrics,) = (output / "inference").glob("*/metrics.json")
    assert 0 <= json.loads(metrics.read_text())["merged/F1@50"] <= 100

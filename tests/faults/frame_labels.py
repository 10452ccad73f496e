"""Faults in what action segmentation is given: features, labels, splits, class names, texts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.faults.ground import Ground, Outcome, Survivor, fault, kept_files
from tests.projects.fact_clip.layout_ground import (
    CLASSES,
    WIDTH,
    make_layout,
    replace_line,
    write_lines,
)

ACTIONS = "Features, labels and class names of fact_clip"
TINY = (
    *("MODEL.DEVICE", "cpu", "DATALOADER.NUM_WORKERS", "0"),
    *("FACT.ntoken", "8", "FACT.block", "iu", "Bi.hid_dim", "16", "Bi.a_dim", "8"),
    *("Bi.f_dim", "8", "Bi.a_nhead", "2", "Bi.a_ffdim", "16", "Bi.a_layers", "1"),
    *("Bi.f_layers", "2", "Bi.f_ngp", "1", "Bu.f_layers", "2"),
    *("SOLVER.MAX_ITER", "2", "SOLVER.IMS_PER_BATCH", "3", "SOLVER.WARMUP_ITERS", "0"),
    *("DATASETS.DATASET_TYPE", "('action_frames',)"),
    *("DATASETS.DATASET_TYPE_TEST", "('action_frames',)"),
)


def nothing_trained(ground: Ground) -> None:
    """all files; no weights were written"""
    kept_files(ground)
    assert not list(ground.out.rglob("*.pth"))
    assert not list(ground.folder.rglob(".*.tmp"))


def trains_once_repaired(ground: Ground) -> None:
    """the run: once the file is repaired, the same command trains to the end"""
    assert not (ground.out / "model_final.pth").exists()
    ground.repair()
    split = ground.folder / "salads" / "splits" / "train.split1.bundle"
    assert _train(ground, split).code == 0
    assert (ground.out / "model_final.pth").is_file()


def others_are_scored(ground: Ground) -> None:
    """the trained weights, and the scores of the other videos"""
    metrics = json.loads(
        (ground.out / "inference" / "splits_test.split1" / "metrics.json").read_text()
    )
    assert "merged/F1@50" in metrics
    assert (ground.out / "model_final.pth").is_file()


def _train(ground: Ground, split: Path | str, *words: object) -> Outcome:
    sets = ("DATASETS.TRAIN", f"({str(split)!r},)", "DATASETS.TEST", "()")
    config = ground.folder / "actions.yaml"
    config.write_text("MODEL: {META_ARCHITECTURE: FACT}\n")
    where = ("--config-file", config, "--plugin", "fact_clip")
    return ground.command("train_net", *where, *TINY, *sets, *words, "OUTPUT_DIR", ground.out)


def _with_layout(
    name: str,
    spoil: Callable[[Path], object],
    says: str,
    *words: object,
    options: str = "",
    code: int = 1,
    survives: Survivor = nothing_trained,
) -> None:
    @fault(ACTIONS, name, says=says, code=code, survives=survives)
    def plant(ground: Ground) -> Outcome:
        root = ground.folder / "salads"
        split = make_layout(root)
        spoil(root)
        ground.keep(*(path for path in root.rglob("*") if path.is_file()))
        return _train(ground, f"{split}{options}", *words)


def _shorten_labels(root: Path) -> None:
    path = root / "groundTruth" / "v1.txt"
    write_lines(path, path.read_text().splitlines()[:-2])


def _transpose(root: Path) -> None:
    for path in (root / "features").iterdir():
        np.save(path, np.load(path).T)


_with_layout(
    "fewer labels than frames",
    _shorten_labels,
    r"error: .*v1\.npy has 21 frames, 2 more than .*groundTruth/v1\.txt has labels \(19\); the "
    r"option trim=1 cuts both to the shorter",
)
_with_layout(
    "a label that is no class",
    lambda root: replace_line(root / "groundTruth" / "v0.txt", 9, "pour_oli"),
    r"error: .*groundTruth/v0\.txt:9: 'pour_oli' is none of the 4 classes of .*mapping\.txt; "
    r"nearest: pour_oil",
)
_with_layout(
    "a split that names a missing video",
    lambda root: replace_line(root / "splits" / "train.split1.bundle", 2, "v11"),
    r"error: .*train\.split1\.bundle:2: the video 'v11' has no features: .*v11\.npy is "
    r"missing; nearest: v1",
)
_with_layout(
    "a line of the mapping without a number",
    lambda root: replace_line(root / "mapping.txt", 3, "pour_oil"),
    r"error: .*mapping\.txt:3: 'pour_oil' is not a number and the name of a class",
)
_with_layout(
    "features of shape (D, T)",
    _transpose,
    r"error: .*v0\.npy holds \(features, frames\): read as \(frames, features\) it has 6 frames of "
    r".*; if all files do, give the option transpose=1",
)
_with_layout(
    "a split without labels to train on",
    lambda root: (root / "groundTruth").rename(root / "truth"),
    r"error: .*train\.split1\.bundle: the video 'v0' has no frame labels to train on",
)
_with_layout(
    "a mistyped option of a split",
    lambda root: None,
    r"error: .*DATASETS: .*train\.split1\.bundle has no option 'transposed'; did you mean "
    r"transpose\?",
    options="?transposed=1",
)
_with_layout(
    "a hidden column that there is not",
    lambda root: None,
    r"config error: FACT\.drop_columns names 9, but .*v0\.npy has 6 features per frame",
    *("FACT.drop_columns", "[9]"),
    code=2,
)
_with_layout(
    "an unseen class that there is not",
    lambda root: None,
    r"config error: CLIP\.unseen names 'cut_tomatoes', which is no class .*; nearest: cut_tomato",
    *("MODEL.META_ARCHITECTURE", "FACT_CLIP", "CLIP.unseen", "['cut_tomatoes']"),
    code=2,
)


@fault(
    ACTIONS,
    "NaN in the features of a video",
    says=r"error: .*v2\.npy holds NaN or infinity, first in frame 5",
    code=1,
    survives=trains_once_repaired,
)
def not_a_number(ground: Ground) -> Outcome:
    split = make_layout(ground.folder / "salads")
    path = ground.folder / "salads" / "features" / "v2.npy"
    features = np.load(path)
    features[5] = np.nan
    spoilt = ground.folder / "spoilt.npy"
    np.save(spoilt, features)
    ground.damage(path, spoilt.read_bytes())
    return _train(ground, split)


@fault(
    ACTIONS,
    "a public set that is not there",
    says=r"error: .*gtea/splits/train\.split2\.bundle is missing; expected .*\$VIDSEG_DATASETS",
    code=1,
    survives=nothing_trained,
)
def missing_public_set(ground: Ground) -> Outcome:
    ground.patch.setenv("VIDSEG_DATASETS", str(ground.folder))
    return _train(ground, "gtea_split2_train")


@fault(
    ACTIONS,
    "one of the test videos is damaged",
    says=r"error: damaged videos count as videos without predictions: 1 of .*test\.split1\.bundle",
    code=1,
    survives=others_are_scored,
)
def damaged_test_video(ground: Ground) -> Outcome:
    split = make_layout(ground.folder / "salads")
    test = split.parent / "test.split1.bundle"
    write_lines(test, ["v2", "v3"])
    replace_line(ground.folder / "salads" / "groundTruth" / "v3.txt", 4, "cut_tomatoe")
    return _train(ground, split, "DATASETS.TEST", f"({str(test)!r},)")


def _texts(
    name: str, shape: tuple[int, int], names: tuple[str, ...], says: str, *words: object
) -> None:
    @fault(ACTIONS, name, says=says, code=2 if words else 1, survives=nothing_trained)
    def plant(ground: Ground) -> Outcome:
        split = make_layout(ground.folder / "salads")
        file = ground.folder / "texts.npz"
        np.savez(file, embeddings=np.ones(shape, np.float32), names=np.array(names))
        ground.keep(file)
        text = ("CLIP.text_provider", "file", "CLIP.text_file", file)
        return _train(ground, split, "MODEL.META_ARCHITECTURE", "FACT_CLIP", *text, *words)


_texts(
    "more text embeddings than names",
    (5, WIDTH),
    CLASSES,
    r"error: .*texts\.npz has 5 embeddings, but 4 names",
)
_texts(
    "text embeddings of other classes",
    (3, WIDTH),
    CLASSES[:3],
    r"error: .*texts\.npz has no embedding of the class 'stir_salad'; nearest: ",
)
_texts(
    "text embeddings of another width than asked for",
    (4, WIDTH),
    CLASSES,
    r"config error: .*CLIP\.embed_dim is 512, but the text provider file .* 6",
    *("CLIP.embed_dim", "512"),
)

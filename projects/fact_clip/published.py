"""Settings of the published FACT code in terms of the keys here; its yaml files load unchanged.

Lu and Elhamifar, "FACT: Frame-Action Cross-Attention Temporal Modeling for Efficient Action
Segmentation", CVPR 2024. A file that sets one of these keys gets the published values of those that
it leaves out, and the published training loop: no warm-up, the rate drops once, the best F1@50
counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from vidseg.config.published import WithoutEffect
from vidseg.config.source import Assignment
from vidseg.config.values import coerce

__all__ = ["TRANSLATED_KEYS", "WITHOUT_EFFECT", "translate"]

# Of the data, with the published values.
_DATA: dict[str, Any] = {
    "dataset": "breakfast",
    "split": "split1",
    "feature_path": "",
    "feature_transpose": False,
    "groundTruth_path": "",
    "map_fname": "",
    "split_path": "",
}
# What the published code calls its data sets, with the names here and the background classes.
_DATASETS: dict[str, tuple[str, list[int]]] = {
    "breakfast": ("breakfast", [0]),
    "ego": ("egoprocel", [0]),
    "epic": ("epic_kitchens", [0]),
    "gtea": ("gtea", [10]),
}
_PAIRS_OF_EPIC = "epic-kitchens/processed"
# Of the training, with the published values and what they mean here.
_TRAINING: dict[str, tuple[Any, Callable[[Any], dict[str, Any]]]] = {
    "aux.eval_every": (
        1000,
        lambda value: {"TEST.EVAL_PERIOD": value, "SOLVER.CHECKPOINT_PERIOD": value},
    ),
    "aux.print_every": (200, lambda value: {"SOLVER.LOG_PERIOD": value}),
    "batch_size": (
        4,
        # One video after the other, as it was published.
        lambda value: {"SOLVER.IMS_PER_BATCH": value, "SOLVER.ACCUMULATION_STEPS": value},
    ),
    "clip_grad_norm": (
        10.0,
        lambda value: {
            "SOLVER.CLIP_GRADIENTS.ENABLED": value > 0,
            "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": value,
        },
    ),
    "epoch": (2, lambda value: {"SOLVER.MAX_EPOCHS": value}),
    "lr": (0.1, lambda value: {"SOLVER.BASE_LR": value}),
    "lr_decay": (-1, lambda value: {"SOLVER.EPOCH_STEPS": [value] if value > 0 else []}),
    "momentum": (0.009, lambda value: {"SOLVER.MOMENTUM": value}),
    "optimizer": ("SGD", lambda value: {"SOLVER.OPTIMIZER": value.upper()}),
    "weight_decay": (
        0.0,
        lambda value: {f"SOLVER.WEIGHT_DECAY{part}": value for part in ("", "_NORM", "_EMBED")},
    ),
}
_IN_ANY_CASE: dict[str, Any] = {
    "DATASETS.DATASET_TYPE": ["action_frames"],
    "DATASETS.DATASET_TYPE_TEST": ["action_frames"],
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": "full_model",
    "SOLVER.STEPS": [],
    "SOLVER.WARMUP_ITERS": 0,
    "TEST.BEST_METRIC": "merged/F1@50",
}

TRANSLATED_KEYS = frozenset((*_DATA, *_TRAINING))

WITHOUT_EFFECT = {
    "TM.inplace": WithoutEffect(True, "features are masked in a copy"),
    **dict.fromkeys(
        ("aux.exp", "aux.logdir", "aux.mark"), WithoutEffect("", "OUTPUT_DIR names the run")
    ),
    "aux.runid": WithoutEffect(0, "OUTPUT_DIR names the run"),
    "aux.gpu": WithoutEffect(1, "MODEL.DEVICE chooses the device"),
    "aux.debug": WithoutEffect(False, "DATASETS.TRAIN chooses what to train on"),
    "aux.resume": WithoutEffect("max", "a run continues where it stopped"),
    "aux.wandb_offline": WithoutEffect(False, "WRITERS chooses where figures go"),
    "aux.wandb_project": WithoutEffect("FACT", "WRITERS chooses where figures go"),
    "aux.wandb_user": WithoutEffect("", "WRITERS chooses where figures go"),
}


def translate(items: Sequence[Assignment]) -> list[Assignment]:
    """Replaces published assignments in place by what they mean here.

    Args:
        items: of files and command line, in order; later ones win.

    Returns:
        What the published code does if nothing is said, then ``items`` with the published keys
        replaced.

    Raises:
        ConfigError: if a published key has a value of the wrong type.
    """
    published = [item for item in items if item.key in TRANSLATED_KEYS]
    if not published:
        return list(items)
    data = {**_DATA, **{item.key: _value(item) for item in published if item.key in _DATA}}
    values = {**_IN_ANY_CASE, **_settings_of(data), **_sets_of(data)}
    for default, meaning in _TRAINING.values():
        values.update(meaning(default))
    result = [Assignment(key, value, published[0].file) for key, value in values.items()]
    for item in items:
        result += [
            Assignment(key, value, item.file, item.line)
            for key, value in _meaning(item, data).items()
        ]
    return result


def _meaning(item: Assignment, data: dict[str, Any]) -> dict[str, Any]:
    """Gives one assignment in terms of the keys here; ``data`` are the last values of _DATA."""
    if item.key in _TRAINING:
        return _TRAINING[item.key][1](_value(item))
    if item.key in _DATA:
        return _sets_of(data)
    if item.key == "bg_class" and isinstance(item.value, int):
        return {"bg_class": [item.value]}
    return {item.key: item.value}


def _value(item: Assignment) -> Any:
    if item.key in _TRAINING:
        return coerce(item.key, item.value, _TRAINING[item.key][0], item.source)
    default = _DATA[item.key]
    is_null = item.value in (None, "None")
    return default if is_null else coerce(item.key, item.value, default, item.source)


def _settings_of(data: dict[str, Any]) -> dict[str, Any]:
    """Gives what the published code does with one data set and not with another."""
    is_epic = data["dataset"] == "epic"
    known, background = _DATASETS.get(data["dataset"], (data["dataset"], [0]))
    return {
        "MODEL.META_ARCHITECTURE": "FACTVerbNoun" if is_epic else "FACT",
        "FACT.verb_noun": _PAIRS_OF_EPIC if is_epic else "",
        "OUTPUT_DIR": f"output/fact_{known}_{data['split']}",
        "bg_class": background,
    }


def _sets_of(data: dict[str, Any]) -> dict[str, Any]:
    return {
        "DATASETS.TRAIN": [_split_name(data, "train")],
        "DATASETS.TEST": [_split_name(data, "test")],
    }


def _split_name(data: dict[str, Any], part: str) -> str:
    """Gives the name of a split, or its path with options."""
    name, split = data["dataset"], data["split"]
    # The published code knows where these lie and does not look at the paths.
    if name in _DATASETS or not data["split_path"]:
        return f"{_DATASETS.get(name, (name,))[0]}_{split}_{part}"
    options = {
        "features": data["feature_path"],
        "labels": data["groundTruth_path"],
        "mapping": data["map_fname"],
        "transpose": "1" if data["feature_transpose"] else "",
        "trim": "1",  # which the published reader does without a word
    }
    query = "&".join(f"{key}={value}" for key, value in options.items() if value)
    return f"{data['split_path'].rstrip('/')}/{part}.{split}.bundle?{query}"

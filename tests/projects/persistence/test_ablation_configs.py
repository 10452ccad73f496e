"""The variants of projects/persistence/ablation: each lacks, or adds, one component."""

from __future__ import annotations

from pathlib import Path

import pytest

from vidseg.engine.ablation import plan_ablation

SAME = Path(__file__).parents[3] / "projects" / "persistence" / "same.yaml"
# Components that are more than one key.
SEVERAL = {
    "no_attention_supervision": {"ATTENTION_WEIGHT", "SUMMARY_QUERY"},
    "no_augmentation": {"FLIP", "TIME_REVERSAL", "BRIGHTNESS", "NOISE", "TOKEN_DROPOUT", "JITTER"},
    "with_class_contrast": {"CONTRASTIVE_WEIGHT", "CONTRASTIVE"},
}


@pytest.fixture(scope="module")
def changes() -> dict[str, set[str]]:
    trials = plan_ablation(str(SAME))
    return {
        trial.variant.name: {change.partition(":")[0] for change in trial.variant.changes}
        for trial in trials
    }


def test_each_variant_changes_one_component(changes: dict[str, set[str]]) -> None:
    assert changes.pop("same") == set()
    for name, keys in changes.items():
        found = {key.rpartition(".")[2] for key in keys}
        assert found == SEVERAL[name] if name in SEVERAL else len(found) == 1, name
    assert len({frozenset(keys) for keys in changes.values()}) >= len(changes) - 3


def test_every_option_of_the_model_has_a_variant(changes: dict[str, set[str]]) -> None:
    """What the baseline lacks is in the table, be it that it is taken away or added."""
    options = (
        *("NUM_LAYERS", "TIME", "POSITION", "RELATIVE_BIAS", "TRACK_BIAS", "NULL_KEY", "QUERIES"),
        *("SUMMARY_QUERY", "DURATION_WEIGHT", "ATTENTION_WEIGHT", "CONTRASTIVE_WEIGHT"),
        *("CONTRASTIVE", "CLASS_BALANCE", "PATCH_GREY"),
    )
    changed = set().union(*changes.values())
    assert {f"MODEL.PERSISTENCE.{name}" for name in options} <= changed

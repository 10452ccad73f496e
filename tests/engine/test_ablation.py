"""Ablations: which runs there are, that they are not repeated, and what their table says."""

from __future__ import annotations

import csv
import json
import math
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine.support import PLUGIN, make_dataset, stop_at, write_config
from vidseg.engine.ablation import AblationError, Trial, plan_ablation, run_ablation
from vidseg.engine.ablation_table import Result, Variant, as_markdown, write_tables
from vidseg.errors import ConfigError, UserError


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = write_config(tmp_path, make_dataset(tmp_path / "data", num_videos=2))
    (tmp_path / "ablation").mkdir()
    for name, change in (("no_decay", "WEIGHT_DECAY: 0.0"), ("slow", "BASE_LR: 0.001")):
        text = f"_BASE_: ../toy.yaml\nSOLVER: {{{change}}}\n"
        (tmp_path / "ablation" / f"{name}.yaml").write_text(text)
    return path


def _plan(config: Path, *overrides: object, **options: object) -> list[Trial]:
    words = ["SOLVER.MAX_ITER", "2", *map(str, overrides)]
    return plan_ablation(str(config), overrides=words, plugins=[PLUGIN], **options)  # type: ignore[arg-type]


def test_the_plan_has_every_variant_with_every_seed(config: Path, tmp_path: Path) -> None:
    trials = _plan(config, seeds=[3, 1])
    names = [(trial.variant.name, trial.seed) for trial in trials]
    assert names == [(name, seed) for seed in (3, 1) for name in ("toy", "no_decay", "slow")]
    assert [trial.variant.changes for trial in trials[:3]] == [
        (),
        ("SOLVER.WEIGHT_DECAY: 0.0001 -> 0.0",),
        ("SOLVER.BASE_LR: 0.01 -> 0.001",),
    ]
    assert all(trial.seed == trial.stages[-1].cfg.SEED for trial in trials)
    folder = tmp_path / "output" / "toy" / "ablation"
    assert trials[5].stages[-1].output_dir == folder / "slow" / "seed_1"
    assert [t.variant.name for t in _plan(config, only=["slow"])] == ["toy", "slow"]


def test_mistakes_show_in_the_plan(config: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no variant 'slwo'; nearest: slow"):
        _plan(config, only=["slwo"])
    with pytest.raises(ConfigError, match=r"SEED: an ablation sets it.*use --seeds"):
        _plan(config, "SEED", 1)
    with pytest.raises(ConfigError, match=r"--seeds 1 1: each only once"):
        _plan(config, seeds=[1, 1])
    with pytest.raises(ConfigError, match=r"no variants of .*absent holds no .yaml file"):
        _plan(config, variants=tmp_path / "absent")
    extra = tmp_path / "ablation" / "same.yaml"
    extra.write_text("_BASE_: ../toy.yaml\n")
    with pytest.raises(ConfigError, match=r"same.yaml changes nothing of toy"):
        _plan(config)
    extra.write_text("_BASE_: ../toy.yaml\nDATASETS: {TEST: [ovis_val]}\n")
    with pytest.raises(ConfigError, match=r"tested on ovis_val, but toy on .*another config"):
        _plan(config)
    extra.rename(extra.with_name("toy.yaml"))
    with pytest.raises(ConfigError, match=r"has the name of .*toy.yaml; rename it"):
        _plan(config)


def test_planning_needs_no_torch(config: Path) -> None:
    code = (
        "import sys\n"
        "from vidseg.engine.ablation import plan_ablation\n"
        f"assert len(plan_ablation({str(config)!r}, plugins=['dvis_daq'])) == 3\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_stopped_ablation_goes_on_and_repeats_nothing(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = _plan(config, output=tmp_path / "out", only=["slow"])
    with monkeypatch.context() as patch:
        stop_at(patch, 1)
        assert run_ablation(trials, plugins=[PLUGIN]) == 128 + signal.SIGTERM
    assert "| toy       | none" in (tmp_path / "out" / "ablation.md").read_text()
    assert run_ablation(trials, plugins=[PLUGIN]) == 0
    weights = sorted((tmp_path / "out").glob("*/seed_42/model_final.pth"))
    made = [path.stat().st_mtime_ns for path in weights]
    assert len(made) == 2
    assert run_ablation(trials, plugins=[PLUGIN]) == 0
    assert [path.stat().st_mtime_ns for path in weights] == made
    content = json.loads((tmp_path / "out" / "ablation.json").read_text())
    assert [entry["variant"] for entry in content] == ["toy", "slow"]
    ((dataset, mean),) = content[0]["mean"].items()
    assert dataset.endswith("instances.json")
    assert mean["segm/AP"] == content[0]["runs"][0]["metrics"][dataset]["segm/AP"] >= 0
    with pytest.raises(UserError, match=r"toy/seed_42 holds a run of another config .*--output"):
        run_ablation(_plan(config, "SOLVER.GAMMA", 0.5, output=tmp_path / "out"), plugins=[PLUGIN])


def test_a_run_that_fails_does_not_stop_the_others(config: Path, tmp_path: Path) -> None:
    variant = tmp_path / "ablation" / "hot.yaml"
    variant.write_text(
        "_BASE_: ../toy.yaml\nSOLVER: {BASE_LR: 1.0e+30, MAX_NAN_STEPS: 1, WARMUP_ITERS: 0}\n"
    )
    trials = _plan(config, output=tmp_path / "out", only=["hot", "slow"])
    with pytest.raises(AblationError, match=r"1 of 3 runs failed \(hot, seed 42: 1 steps in a row"):
        run_ablation(trials, plugins=[PLUGIN])
    page = (tmp_path / "out" / "ablation.md").read_text()
    rows = {line.split("|")[1].strip(): line for line in page.splitlines() if line.startswith("|")}
    assert "0 of 1" in rows["hot"]
    assert "0 of 1" not in rows["slow"]
    assert "- hot, seed 42: 1 steps in a row" in page


BASE, LESS = Variant("all"), Variant("less", ("A: 1 -> 0", "B: x|y -> z"))


def _result(variant: Variant, seed: int, **metrics: float) -> Result:
    flat = {f"tokens/{name}": value for name, value in metrics.items()}
    return Result(variant, seed, {"val": flat} if flat else {})


def _cells(page: str) -> list[list[str]]:
    lines = [line for line in page.splitlines() if line.startswith("|")]
    return [[c.strip() for c in line.replace(r"\|", "/")[1:-1].split("|")] for line in lines]


def test_means_deviations_and_differences() -> None:
    results = [
        _result(BASE, 1, accuracy=90.0, ratio=2.0),
        _result(BASE, 2, accuracy=92.0, ratio=math.nan),
        _result(LESS, 1, accuracy=80.0, ratio=1.0),
        _result(LESS, 2),
    ]
    head, _, *rows = _cells(as_markdown(results, {"val": ("accuracy", "ratio")}))
    assert head == ["variant", "change", "runs", "tokens/accuracy", "tokens/ratio"]
    assert rows[0] == ["all", "none", "2", "91.00 ± 1.41", "2.00 of 1"]
    # Against the same seed of the base, not against the mean of both.
    assert rows[1] == ["less", "A: 1 -> 0; B: x/y -> z", "1 of 2", "80.00 (-10.00)", "1.00 (-1.00)"]


def test_files_hold_every_metric(tmp_path: Path) -> None:
    results = [_result(BASE, 1, accuracy=0.1 + 0.2), _result(LESS, 1, accuracy=math.nan)]
    write_tables(tmp_path, results, {"val": ()})
    with (tmp_path / "ablation.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["variant"], row["value"]) for row in rows] == [
        ("all", "0.30000000000000004"),
        ("less", ""),
    ]
    assert "NaN" not in (tmp_path / "ablation.json").read_text()
    content = json.loads((tmp_path / "ablation.json").read_text())
    assert content[1]["changes"] == list(LESS.changes)
    assert content[1]["mean"] == content[0]["std"] == {}

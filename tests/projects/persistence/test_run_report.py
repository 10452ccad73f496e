"""The page about all runs of a folder, from run directories as training leaves them."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vidseg.errors import DataError
from vidseg.projects.persistence.__main__ import main
from vidseg.projects.persistence.pages import Heading, Picture, Table, Text, as_html, as_markdown
from vidseg.projects.persistence.run_report import find_runs, write_report

TRAIN, TEST = "persistence_same_train", "persistence_same_test"


def _make_run(
    folder: Path, metrics: dict[str, dict[str, Any]] | None, seed: int = 42, **keys: Any
) -> Path:
    """Writes the config and the metrics of a run."""
    folder.mkdir(parents=True)
    config = {
        "MODEL": {
            "META_ARCHITECTURE": "ObjectPersistence",
            "PERSISTENCE": {"ATTENTION_WEIGHT": 0.0, **keys},
        },
        "DATASETS": {"TRAIN": [TRAIN], "TEST": [TEST]},
        "SEED": seed,
        "OUTPUT_DIR": str(folder),
    }
    (folder / "config.yaml").write_text(json.dumps(config))  # json is yaml
    if metrics is not None:
        content = {"iteration": 9, "metrics": metrics}
        (folder / "final_metrics.json").write_text(json.dumps(content))
    return folder


def _metrics(balanced: float, **more: float | None) -> dict[str, float | None]:
    return {"tokens/balanced_accuracy": balanced, "baselines/tracker": 94.0, **more}


def _rows(page: Path, heading: str) -> list[dict[str, str]]:
    section = page.read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


def _refuse(error: DataError) -> None:
    raise error


def test_runs_that_differ_in_the_seed_share_a_row(tmp_path: Path) -> None:
    for seed, value in ((42, 98.0), (43, 99.0)):
        _make_run(tmp_path / "same" / f"s{seed}", {TEST: _metrics(value)}, seed)
    _make_run(tmp_path / "other", {TEST: _metrics(97.0)}, ATTENTION_WEIGHT=0.1)
    page = write_report(find_runs(tmp_path, _refuse), tmp_path / "report").with_suffix(".md")
    rows = {row["run"]: row for row in _rows(page, "Decisions")}
    assert rows["same"]["balanced"] == "98.50 ± 0.71"
    assert rows["same"]["runs"] == "2"
    assert (rows["same"]["trained on"], rows["same"]["tested on"]) == ("same_train", "same_test")
    assert rows["other"]["balanced"] == "97.00"
    weights = {row["run"]: row["supervision"] for row in _rows(page, "Attention")}
    assert weights == {"same": "0", "other": "0.1"}


def test_intervals_gaps_and_what_is_undefined(tmp_path: Path) -> None:
    interval = {f"tokens/balanced_accuracy_{e}": v for e, v in (("low", 96.0), ("high", 98.0))}
    flat = _metrics(97.0, **interval, **{"attention/summary/ratio": None})
    metrics = {"persistence_same_val": _metrics(96.0), f"{TRAIN}_400": _metrics(98.5), TEST: flat}
    _make_run(tmp_path / "run", metrics)
    page = write_report(find_runs(tmp_path, _refuse), tmp_path / "report").with_suffix(".md")
    test, val = _rows(page, "Decisions")
    assert test["balanced"] == "97.00 (96.00 to 98.00)"
    assert (test["training minus test"], val["training minus test"]) == ("1.50", "2.50")
    assert val["tested on"] == "same_val"
    assert test["leak probe"] == "-"
    assert _rows(page, "Attention")[0]["ratio, summary"] == "-"
    assert not math.isnan(float(test["tracker"]))


def test_pictures_and_tables_are_shown(tmp_path: Path) -> None:
    run = _make_run(tmp_path / "my run", {TEST: _metrics(97.0)})
    inference = run / "inference" / TEST
    inference.mkdir(parents=True)
    (inference / "report.md").write_text("tables")
    pictures = [run / "training_curves.png"]
    kinds = ("attention_sample", "tracks")
    pictures += [inference / f"{kind}_{n}.png" for kind in kinds for n in "ab"]
    for path in pictures:
        Image.new("RGB", (4, 4)).save(path)
    folder = tmp_path / "ablation" / "less" / "seed_42"
    variant = _make_run(folder, {TEST: _metrics(90.0)}, HIDDEN_DIM=1)
    Image.new("RGB", (4, 4)).save(variant / "training_curves.png")
    (tmp_path / "ablation" / "ablation.md").write_text("a table")
    page = write_report(find_runs(tmp_path, _refuse), tmp_path / "report", num_clips=1)
    markdown = page.with_suffix(".md").read_text()
    links = {part.split(")")[0] for part in markdown.split("](")[1:]}
    assert links == {
        "../ablation/ablation.md",
        "../my%20run/training_curves.png",
        f"../my%20run/inference/{TEST}/report.md",
        f"../my%20run/inference/{TEST}/attention_sample_a.png",
        f"../my%20run/inference/{TEST}/tracks_a.png",
    }
    for link in links:
        assert (page.parent / link.replace("%20", " ")).is_file()
    text = page.read_text()
    assert text.count("data:image/png;base64,") == 3
    assert 'src="..' not in text


def test_damaged_and_unfinished_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _make_run(tmp_path / "good", {TEST: _metrics(97.0)})
    _make_run(tmp_path / "half", None)
    (_make_run(tmp_path / "list", {}) / "config.yaml").write_text("- 1\n")
    (_make_run(tmp_path / "cut", {}) / "final_metrics.json").write_text('{"metr')
    (_make_run(tmp_path / "bytes", {}) / "config.yaml").write_bytes(b"\xff\xfe\x00")
    other = _make_run(tmp_path / "dvis", {}) / "config.yaml"
    other.write_text(other.read_text().replace("ObjectPersistence", "Dvis"))
    assert main(["report", "--input", str(tmp_path), "--output", str(tmp_path / "out")]) == 1
    shown = capsys.readouterr()
    lines = shown.err.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("error: ") and line.endswith("; it is left out") for line in lines)
    assert "2 runs -> " in shown.out
    page = (tmp_path / "out" / "report.md").read_text()
    assert "## Not finished\n\nhalf" in page
    assert "1 finished runs of 1 configs" in page


def test_folders_without_runs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"--input .*absent is no folder"):
        find_runs(tmp_path / "absent", _refuse)
    with pytest.raises(DataError, match=r"holds no run of ObjectPersistence"):
        find_runs(tmp_path, _refuse)


def test_the_folder_of_one_run_will_do(tmp_path: Path) -> None:
    run = _make_run(tmp_path / "same", {TEST: _metrics(97.0)})
    assert main(["report", "--input", str(run)]) == 0
    assert _rows(run / "report" / "report.md", "Decisions")[0]["run"] == "same"


def test_help_needs_no_torch() -> None:
    code = (
        "import sys\nfrom vidseg.projects.persistence.__main__ import main\n"
        "try: main(['report', '--help'])\nexcept SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "report --input output/persistence" in done.stdout


def test_pages_escape_what_has_a_meaning(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    blocks = [
        Heading("a < b", 1),
        Text("x & y"),
        Text("more", tmp_path / "b c.md"),
        Table(["k", "v"], [["p|q", "<i>"]]),
        Picture(tmp_path / "a.png", 'say "so"'),
    ]
    text = as_html(blocks, tmp_path)
    for part in (
        "<h1>a &lt; b</h1>",
        "x &amp; y",
        'href="b%20c.md"',
        "&lt;i&gt;",
        "&quot;so&quot;",
    ):
        assert part in text
    assert r"p\|q" in as_markdown(blocks, tmp_path)

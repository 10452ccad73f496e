"""The commands: what they write, say and refuse."""

from __future__ import annotations

import csv
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from vidseg.errors import ConfigError, DataError, UserError
from vidseg.evaluation.finished_runs import FinishedRun
from vidseg.projects.fact_clip.__main__ import main, parse
from vidseg.projects.fact_clip.averaging import gather, read_runs
from vidseg.projects.fact_clip.text import Prompts, TextSettings, embed_names

NAMES = ["background", "cut_tomato", "peel_tomato"]


def embed(tmp_path: Path, *words: str, names: str = "\n".join(NAMES)) -> Path:
    (tmp_path / "classes.txt").write_text(names)
    output = tmp_path / "made" / "classes.npz"
    argv = ["embed", "--input", tmp_path / "classes.txt", "--output", output, *words]
    assert main(list(map(str, argv))) == 0
    return output


def make_run(
    folder: Path, split: str, seed: int, values: dict[str, float] | None, **config: Any
) -> Path:
    """Writes what training leaves behind."""
    folder.mkdir(parents=True)
    content = {"SEED": seed, "OUTPUT_DIR": str(folder), **config}
    content["DATASETS"] = {"TRAIN": [f"a_{split}_train"], "TEST": [f"a_{split}_test"]}
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    if values is not None:
        metrics = {"iteration": 1, "metrics": {f"a_{split}_test": values}}
        (folder / "final_metrics.json").write_text(json.dumps(metrics))
    return folder


def acc(value: float) -> dict[str, float]:
    return {"merged/Acc": value, "per_class/x": 1.0}


def test_embedded_names_are_read_by_the_provider(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    templates = ("{}", "a video of {}")
    path = embed(tmp_path, "CLIP.templates", str(list(templates)), "CLIP.embed_dim", "64")
    told = capsys.readouterr().out
    assert told.startswith(f"3 classes, 64 numbers each -> {path}\n")
    assert "nearest: cut_tomato, peel_tomato (cosine 0." in told
    expected = embed_names(TextSettings(embed_dim=64, prompts=Prompts(templates)), NAMES)
    back = embed_names(TextSettings("file", str(path)), NAMES[::-1])
    assert np.allclose(back, expected[::-1], atol=1e-6)
    with np.load(path) as content:
        assert tuple(content["templates"]) == templates


def test_numbered_names_and_a_single_one(tmp_path: Path) -> None:
    path = embed(tmp_path, names="1 peel\n0 cut\n")
    with np.load(path) as content:
        assert content["names"].tolist() == ["cut", "peel"]
    assert embed_names(TextSettings("file", str(embed(tmp_path, names="cut"))), ["cut"]).any()


def test_a_config_says_how_to_embed(tmp_path: Path) -> None:
    config = tmp_path / "f.yaml"
    config.write_text("MODEL: {META_ARCHITECTURE: FACT_CLIP}\nCLIP: {text_provider: hash}\n")
    path = embed(tmp_path, "--config-file", str(config))
    with np.load(path) as content:
        assert np.allclose(content["embeddings"], embed_names(TextSettings("hash"), NAMES))


def test_what_embed_refuses(tmp_path: Path) -> None:
    base = ["embed", "--input", str(tmp_path / "classes.txt"), "--output"]
    with pytest.raises(UserError, match=r"classes\.txt is no name of a \.npz file"):
        main([*base, str(tmp_path / "classes.txt")])
    with pytest.raises(DataError, match=r"classes\.txt does not exist"):
        main([*base, str(tmp_path / "a.npz")])
    (tmp_path / "classes.txt").write_text("cut\n")
    with pytest.raises(ConfigError, match=r"CLIP.text_provide .*did you mean text_provider"):
        main([*base, str(tmp_path / "a.npz"), "CLIP.text_provide", "hash"])
    with pytest.raises(UserError, match="'hasch' is not registered; nearest: hash"):
        main([*base, str(tmp_path / "a.npz"), "CLIP.text_provider", "hasch"])
    assert not (tmp_path / "a.npz").exists()


def test_splits_and_seeds_are_averaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = {("split1", 0): 50.0, ("split1", 1): 52.0, ("split10", 0): 60.0, ("split10", 1): 66.0}
    values |= {("split2", 0): 70.0, ("split2", 1): 71.0}
    for (split, seed), value in values.items():
        make_run(tmp_path / f"{split}_{seed}", split, seed, acc(value))
    assert main(["average", "--input", str(tmp_path), "--output", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    assert (tmp_path / "out" / "average.md").read_text() == told
    assert "## a_split*_test\n" in told
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in told.splitlines()]
    rows = {row[0]: row[1:] for row in table if row}
    assert rows["split"] == ["runs", "merged/Acc"]
    assert rows["split1"] == ["2", "51.0 ± 1.4"]
    assert rows["split10"] == ["2", "63.0 ± 4.2"]
    # Means over splits: 60 and 63 of the seeds; 51, 63 and 70.5 of the splits.
    spread = statistics.stdev([51, 63, 70.5])
    assert rows["mean"] == ["6", f"61.5 ± {statistics.stdev([60, 63]):.1f} ({spread:.1f})"]
    assert [*rows][2:] == ["split1", "split2", "split10", "mean"]
    with (tmp_path / "out" / "average.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert {line["metric"] for line in lines} == {"merged/Acc", "per_class/x"}
    mean = next(line for line in lines if line["split"] == "mean")
    assert float(mean["mean"]) == 61.5
    assert float(mean["sd"]) == pytest.approx(statistics.stdev([60, 63]))


def test_only_whole_repetitions_spread(tmp_path: Path) -> None:
    for split, seed in (("split1", 0), ("split2", 0), ("split1", 1)):
        make_run(tmp_path / f"{split}_{seed}", split, seed, acc(seed + len(split)))
    (table,) = gather(read_runs([tmp_path], pytest.fail))
    assert table.mean("merged/Acc") == statistics.fmean([6.5, 6])
    assert table.deviation("merged/Acc") is None


def test_other_settings_make_another_table(tmp_path: Path) -> None:
    for number, (gamma, seed) in enumerate(((0.1, 0), (0.1, 1), (0.2, 0))):
        unseen = [f"class{number}"]
        make_run(
            tmp_path / str(number),
            "test",
            seed,
            acc(50 + number),
            CLIP={"gamma": gamma, "unseen": unseen},
        )
    tables = gather(read_runs([tmp_path], pytest.fail))
    assert [table.title for table in tables] == [
        "a_test_test; CLIP.gamma 0.1",
        "a_test_test; CLIP.gamma 0.2",
    ]
    assert [len(table.scores) for table in tables] == [2, 1]


def test_splits_may_differ_in_iterations(tmp_path: Path) -> None:
    for split, length in (("split1", 100), ("split2", 110)):
        make_run(tmp_path / split, split, 0, acc(5), SOLVER={"MAX_ITER": length})
    assert len(gather(read_runs([tmp_path], pytest.fail))) == 1
    make_run(tmp_path / "long", "split1", 0, acc(5), SOLVER={"MAX_ITER": 200})
    titles = [table.title for table in gather(read_runs([tmp_path], pytest.fail))]
    assert titles == [f"a_split*_test; SOLVER.MAX_ITER {length}" for length in (200, 100, 110)]


def test_runs_named_twice_count_once(tmp_path: Path) -> None:
    one = make_run(tmp_path / "one", "split1", 0, acc(5))
    assert len(read_runs([one, tmp_path, one / ".." / "one"], pytest.fail)) == 1


def test_names_of_splits(tmp_path: Path) -> None:
    names = {
        "/data/salads/splits/test.split1.bundle?features=/x/split9": "split1",
        "splits_test.split10": "split10",
        "50salads_split2_test": "split2",
        "actions_synthetic_test": "actions_synthetic_test",
        "/data/a/splits/test.bundle": "test.bundle",
    }
    run = FinishedRun(tmp_path, {}, {name: acc(1) for name in names})
    tables = gather([run])
    assert [score.split for table in tables for score in table.scores] == [*names.values()]
    assert tables[0].title == "/data/salads/splits/test.split*.bundle?features=/x/split9"


def test_single_evaluations_are_averaged(tmp_path: Path) -> None:
    paths = []
    for split, value in (("split1", 4.0), ("split2", 5.0)):
        path = tmp_path / split / "inference" / f"a_{split}_test" / "metrics.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"merged/Acc": value, "undefined": None}))
        paths.append(path)
    (tmp_path / "split1" / "config.yaml").write_text("SEED: 1\n")
    (tmp_path / "split2" / "config.yaml").write_text("SEED: 1\n")
    (table,) = gather(read_runs([*paths, paths[0]], pytest.fail))
    assert table.mean("merged/Acc") == 4.5
    assert table.metrics == ["merged/Acc"]
    (table,) = gather(read_runs(paths[:1], pytest.fail))
    paths[0].write_text("[]")
    failures: list[DataError] = []
    assert read_runs([paths[0], tmp_path / "no" / "metrics.json"], failures.append) == []
    assert "holds no metrics" in str(failures[0])
    assert "does not exist" in str(failures[1])


def test_runs_that_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / "good", "split1", 0, acc(5))
    make_run(tmp_path / "unfinished", "split1", 1, None)
    (make_run(tmp_path / "torn", "split1", 2, acc(1)) / "final_metrics.json").write_text("{")
    argv = ["average", "--input", str(tmp_path), str(tmp_path / "gone")]
    assert main(argv) == 1
    told = capsys.readouterr()
    assert "unfinished is not finished: it has no final metrics; it is left out" in told.err
    assert "final_metrics.json is not valid json" in told.err
    assert "gone holds no run: there is no config.yaml in it or below" in told.err
    assert "| split1 | 1" in " ".join(told.out.split())
    with pytest.raises(DataError, match="there is no finished run"):
        main(["average", "--input", str(tmp_path / "unfinished")])


def test_metrics_may_be_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / "a", "split1", 0, acc(5))
    main(["average", "--input", str(tmp_path), "--metrics", "per_class/x"])
    told = capsys.readouterr().out
    assert "per_class/x" in told
    assert "merged/Acc" not in told
    with pytest.raises(UserError, match="no run has 'merged/Ac'; nearest: merged/Acc"):
        main(["average", "--input", str(tmp_path), "--metrics", "merged/Ac"])


def test_overrides_stand_anywhere() -> None:
    words = ["CLIP.gamma", "1", "--input", "a", "--output", "b.npz", "CLIP.embed_dim", "4"]
    args = parse(["embed", *words])
    assert args.overrides == ["CLIP.gamma", "1", "CLIP.embed_dim", "4"]


@pytest.mark.parametrize("command", ["timeline", "embed", "average"])
def test_help_needs_neither_torch_nor_numpy(command: str) -> None:
    code = (
        "import sys\nfrom vidseg.projects.fact_clip.__main__ import main\n"
        f"try: main([{command!r}, '--help'])\n"
        "except SystemExit as end: assert not end.code\n"
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert done.returncode == 0
    assert b"example" in done.stdout

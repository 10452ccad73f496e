from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vidseg.config import CfgNode, get_cfg, load_config
from vidseg.errors import ConfigError


def write(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def message(*args: object, **kwargs: object) -> str:
    with pytest.raises(ConfigError) as error:
        load_config(*args, **kwargs)  # type: ignore[arg-type]
    return str(error.value)


def test_defaults_are_fresh_each_time() -> None:
    one = get_cfg()
    one.SOLVER.MAX_ITER = 1
    one.DATASETS.DATASET_RATIO.append(2.0)
    assert get_cfg() != one
    assert get_cfg().DATASETS.DATASET_RATIO == [1.0]
    assert not load_config().is_frozen()


def test_base_is_relative_recursive_and_weaker(tmp_path: Path) -> None:
    write(tmp_path, "root.yaml", "SEED: 1\nSOLVER: {MAX_ITER: 1, BASE_LR: 1e-4}\n")
    write(tmp_path, "sub/mid.yaml", "SOLVER: {MAX_ITER: 2}\n_BASE_: ../root.yaml\n")
    top = write(tmp_path, "top.yaml", "_BASE_: sub/mid.yaml\nSOLVER: {GAMMA: 1}\n")
    cfg = load_config(top, ["SOLVER.GAMMA", "0.5"])
    assert (cfg.SEED, cfg.SOLVER.MAX_ITER, cfg.SOLVER.BASE_LR) == (1, 2, 1e-4)
    assert cfg.SOLVER.GAMMA == 0.5


def test_of_several_bases_the_later_wins(tmp_path: Path) -> None:
    write(tmp_path, "root.yaml", "SEED: 1\nSOLVER: {MAX_ITER: 1}\n")
    write(tmp_path, "data.yaml", "_BASE_: root.yaml\nSOLVER: {MAX_ITER: 2}\n")
    write(tmp_path, "model.yaml", "SOLVER: {MAX_ITER: 3, GAMMA: 0.5}\n")
    top = write(tmp_path, "top.yaml", "_BASE_: [data.yaml, model.yaml]\nSOLVER: {GAMMA: 1}\n")
    cfg = load_config(top)
    assert (cfg.SEED, cfg.SOLVER.MAX_ITER, cfg.SOLVER.GAMMA) == (1, 3, 1.0)
    circle = write(tmp_path, "a.yaml", "_BASE_: [root.yaml, a.yaml]\n")
    assert "goes round in a circle" in message(circle)


def test_iterations_replace_epochs_that_were_set_earlier(tmp_path: Path) -> None:
    base = write(tmp_path, "base.yaml", "SOLVER: {MAX_ITER: 7, MAX_EPOCHS: 9, EPOCH_STEPS: [5]}\n")
    derived = write(tmp_path, "a.yaml", "_BASE_: base.yaml\nSOLVER: {MAX_ITER: 8}\n")
    epochs = write(tmp_path, "b.yaml", "_BASE_: a.yaml\nSOLVER: {MAX_EPOCHS: 3}\n")
    found = [load_config(file).SOLVER for file in (base, derived, epochs)]
    assert [(node.MAX_ITER, node.MAX_EPOCHS) for node in found] == [(7, 9), (8, 0), (8, 3)]
    assert [node.EPOCH_STEPS for node in found] == [(5,)] * 3
    cfg = load_config(base, ["SOLVER.MAX_ITER", "2", "SOLVER.STEPS", "[1]"])
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.MAX_EPOCHS) == (2, 0)
    assert (cfg.SOLVER.STEPS, cfg.SOLVER.EPOCH_STEPS) == ((1,), ())


def test_merges_of_the_node_itself_follow_the_same_rules(tmp_path: Path) -> None:
    cfg = get_cfg()
    cfg.merge_from_file(write(tmp_path, "a.yaml", "SOLVER: {MAX_ITER: 1e2}\n"))
    cfg.merge_from_list(["SOLVER.BASE_LR", "1"])
    other = CfgNode({"SEED": 5.0})
    cfg.merge_from_other_cfg(other)
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.BASE_LR, cfg.SEED) == (100, 1.0, 5)
    with pytest.raises(ConfigError, match="did you mean MAX_ITER"):
        cfg.merge_from_list(["SOLVER.MAX_ITERS", "1"])
    with pytest.raises(KeyError):
        cfg.lookup("SOLVER.NOTHING")


def test_unknown_key_names_file_line_and_nearest(tmp_path: Path) -> None:
    file = write(tmp_path, "online.yaml", "SEED: 1\nMODEL:\n  MASK_FORMER:\n    DICE_WEIGTH: 5\n")
    assert message(file) == (
        f"unknown key MODEL.MASK_FORMER.DICE_WEIGTH in {file}:4; did you mean DICE_WEIGHT?"
    )


@pytest.mark.parametrize(
    ("key", "guess"),
    [
        ("SOLVER.MAX_ITERS", "did you mean MAX_ITER?"),
        ("MODEL.NUM_CLASSES", "did you mean MODEL.SEM_SEG_HEAD.NUM_CLASSES?"),
        ("MODEL.VIDEO_HEAD.NUM_SLOT", "did you mean NUM_SLOTS?"),
        ("MODEL.SWIN.EMBED_DIMS", "did you mean EMBED_DIM?"),
        ("solver.max_iter", "did you mean SOLVER.MAX_ITER?"),
        ("QQ.ZZ", "no known key looks like it"),
    ],
)
def test_unknown_key_on_the_command_line(key: str, guess: str) -> None:
    assert message(None, [key, "1"]) == f"unknown key {key} (command line); {guess}"


def test_wrong_type_is_one_sentence(tmp_path: Path) -> None:
    words = ["SOLVER.MAX_ITER", "ten"]
    assert message(None, words) == "SOLVER.MAX_ITER wants int, got 'ten' (command line)"
    file = write(tmp_path, "a.yaml", "SOLVER:\n  MAX_ITER: null\n")
    assert message(file) == f"SOLVER.MAX_ITER wants int, got None ({file}:2)"
    assert message(None, ["SOLVER", "3"]).startswith("SOLVER is a group of keys, got '3'")
    nested = write(tmp_path, "b.yaml", "SEED:\n  DEEP: 1\n")
    assert "unknown key SEED.DEEP" in message(nested)


@pytest.mark.parametrize("words", [["SEED"], ["SEED", "1", "OUTPUT_DIR"]])
def test_odd_overrides(words: list[str]) -> None:
    text = message(None, words)
    assert f"got {len(words)} words: the last one, '{words[-1]}', has no partner" in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SEED: !!python/object/apply:os.system ['true']\n", "only plain YAML is read"),
        ("SOLVER: !!python/dict {MAX_ITER: 1}\n", "only plain YAML is read"),
        ("SEED: [1\n", "is not valid YAML"),
        ("SEED: *nobody\n", "is not valid YAML"),
        ("- SEED\n", "holds no KEY: VALUE lines"),
        ("_BASE_: missing.yaml\n", "does not exist (_BASE_ of "),
        ("_BASE_: a.yaml\n", "goes round in a circle"),
        ("_BASE_: 5\n", "_BASE_ wants a file name, got 5"),
        ("_BASE_: [b.yaml, 5]\n", "_BASE_ wants a file name, got ['b.yaml', 5]"),
        ("_BASE_: []\n", "_BASE_ wants a file name, got []"),
        ("VERSION: 1\n", "VERSION 1 is not known, only 2 is"),
    ],
)
def test_bad_files(text: str, expected: str, tmp_path: Path) -> None:
    assert expected in message(write(tmp_path, "a.yaml", text))


def test_missing_file_names_its_neighbour(tmp_path: Path) -> None:
    write(tmp_path, "offline.yaml", "")
    assert f"nearest: {tmp_path}/offline.yaml" in message(tmp_path / "ofline.yaml")
    assert "is a folder" in message(tmp_path)


def test_empty_files_and_empty_groups_change_nothing(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, "a.yaml", "")) == get_cfg()
    assert load_config(write(tmp_path, "b.yaml", "MODEL:\nSOLVER: {}\n")) == get_cfg()


def test_published_keys_without_effect_are_reported_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = "MODEL: {MASK_ON: True, RPN: {NMS_THRESH: 0.5}, SWIN: {QK_SCALE: null}}\n"
    with caplog.at_level(logging.WARNING):
        cfg = load_config(write(tmp_path, "a.yaml", text), ["MODEL.RPN.NMS_THRESH", "0.6"])
    assert [record.getMessage() for record in caplog.records] == [
        "config keys without effect: MODEL.RPN.NMS_THRESH (they belong to box detectors)"
    ]
    assert not cfg.has("MODEL.RPN")
    assert "MODEL.RPN.NMS_THRESH wants float" in message(None, ["MODEL.RPN.NMS_THRESH", "x"])


def test_chain_start_is_relative_to_the_file_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = write(tmp_path, "one/base.yaml", "SOLVER: {INIT_FROM: first.yaml}\n")
    top = write(tmp_path, "two/top.yaml", "_BASE_: ../one/base.yaml\n")
    monkeypatch.chdir(tmp_path)
    expected = os.path.join(base.parent.resolve(), "first.yaml")
    assert expected == load_config("two/top.yaml").SOLVER.INIT_FROM
    words = ["SOLVER.INIT_FROM", "x.yaml"]
    assert str(tmp_path.resolve() / "x.yaml") == load_config(top, words).SOLVER.INIT_FROM
    assert load_config(top, ["SOLVER.INIT_FROM", ""]).SOLVER.INIT_FROM == ""


def test_dump_loads_again(tmp_path: Path) -> None:
    words = ["SOLVER.STEPS", "(5,)", "INPUT.STEPS", "[3]", "DATASETS.TRAIN", "(a,)"]
    cfg = load_config(None, [*words, "SOLVER.BASE_LR", "1e-7"])
    assert load_config(write(tmp_path, "config.yaml", cfg.dump())) == cfg


def test_shipped_files_are_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_config("projects/dvis_daq/offline.yaml").has("MODEL.VIDEO_HEAD.NUM_SLOTS")


def test_nothing_here_imports_torch(tmp_path: Path) -> None:
    code = (
        "import sys, vidseg; from vidseg.config import load_config; from vidseg.errors import *\n"
        "load_config('projects/dvis_daq/offline.yaml')\n"
        "try: load_config(None, ['MODEL.VIDEO_HEAD.NUM_SLOTZ', '1'])\n"
        "except ConfigError: pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, timeout=60).returncode == 0

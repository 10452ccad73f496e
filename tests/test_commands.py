"""What the commands of projects share: parsing, failures, overrides among paths."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vidseg.commands import (
    Failures,
    add_command,
    add_model_options,
    build_trained,
    load_model_config,
    non_negative,
    parse_command,
    positive,
    split_overrides,
    use_run,
)
from vidseg.config import load_config
from vidseg.errors import ConfigError, DataError, UserError

SMALL = ("MODEL.RQVAE.CODEBOOK_SIZE", "8", "MODEL.RQVAE.NUM_CODEBOOKS", "2")
CONFIG = Path(__file__).parents[1] / "projects" / "rqvae" / "rqvae.yaml"


def add_parser(commands: Any) -> None:
    parser = add_command(commands, "say", "Says a word.", "example:\n  say it\n")
    add_model_options(parser, required=False)
    parser.add_argument("--word", type=positive)
    parser.add_argument("--input", nargs="+")


def parse(*words: str) -> argparse.Namespace:
    return parse_command(
        list(words),
        [SimpleNamespace(add_parser=add_parser)],
        module="vidseg.projects.toy",
        description="A toy.",
        example="example:\n  toy say\n",
    )


def test_overrides_stand_anywhere() -> None:
    args = parse("say", "A.B", "1", "--word", "7", "C.D", "2")
    assert (args.word, args.overrides) == (7, ["A.B", "1", "C.D", "2"])
    args = parse("say", "A.B", "1", "--input", "a.mp4", "b", "C.D", "2")
    assert (args.input, args.overrides) == (["a.mp4", "b"], ["C.D", "2", "A.B", "1"])


def test_help_tells_all(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse("--help")
    assert caught.value.code == 0
    told = capsys.readouterr().out
    assert "python -m vidseg.projects.toy" in told
    assert "says a word" in told
    assert "  toy say\n\nEach command has a --help" in told
    with pytest.raises(SystemExit):
        parse("say", "--help")
    assert "  say it" in capsys.readouterr().out


@pytest.mark.parametrize("words", [(), ("sing",), ("say", "--word", "0")])
def test_wrong_command_lines(words: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(*words)
    assert caught.value.code == 2


def test_failures_are_told_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    failures = Failures("; left out")
    assert failures.exit_code == 0
    failures(DataError("a.npy is empty"))
    assert capsys.readouterr().err == "error: a.npy is empty; left out\n"
    assert (failures.count, failures.exit_code) == (1, 1)


def test_numbers() -> None:
    assert (positive("2"), non_negative("0")) == (2, 0)
    for read, text in ((positive, "0"), (non_negative, "-1")):
        with pytest.raises(argparse.ArgumentTypeError):
            read(text)


@pytest.mark.parametrize(
    ("words", "paths"),
    [
        (["a.mp4", "b", "INPUT.MIN_SIZE_TEST", "96"], 2),
        (["model.mp4", "model.device", "cpu"], 1),
        (["x.npy", "CLIP.gamma", "0.1"], 1),
        (["x.npy", "Bi.f_dim", "8"], 1),
        (["Kitchen.npy", "Talk.MP4", "photo.jpeg"], 3),
        (["a.b", "folder/CLIP.gamma"], 2),
        ([], 0),
    ],
)
def test_keys_among_paths(words: list[str], paths: int) -> None:
    assert split_overrides(words) == (words[:paths], words[paths:])


def test_what_exists_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "VIDEOS").mkdir()
    assert split_overrides(["VIDEOS", "TEST"]) == (["VIDEOS"], ["TEST"])


def test_config_of_the_options() -> None:
    args = argparse.Namespace(config_file=str(CONFIG), overrides=["SEED", "5"], plugin=[])
    assert load_model_config(args).SEED == 5
    args.overrides = ["SEEED", "5"]
    with pytest.raises(ConfigError, match="SEED"):
        load_model_config(args)


def test_a_run_stands_for_config_and_weights(tmp_path: Path) -> None:
    args = argparse.Namespace(run_dir=None, config_file="f.yaml", weights="")
    use_run(args)
    assert (args.config_file, args.weights) == ("f.yaml", "")
    args.run_dir = tmp_path
    with pytest.raises(DataError, match=r"is no run: it has no config\.yaml"):
        use_run(args)
    (tmp_path / "config.yaml").touch()
    use_run(args)
    assert args.config_file == str(tmp_path / "config.yaml")
    assert args.weights == str(tmp_path / "model_final.pth")
    args.weights = "other.pth"
    use_run(args)
    assert args.weights == "other.pth"


def test_models_are_built_with_their_weights(tmp_path: Path) -> None:
    import torch

    from vidseg.modeling import build_model

    cfg = load_config(CONFIG, ["OUTPUT_DIR", str(tmp_path), "MODEL.DEVICE", "cpu", *SMALL])
    with pytest.raises(UserError, match="weights"):
        build_trained(cfg, "")
    model = build_model(cfg)
    torch.save({"model": model.state_dict()}, tmp_path / "model_final.pth")
    built = build_trained(cfg, "")
    assert not built.training
    expected = model.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in built.state_dict().items())

    def refuse(model: Any) -> None:
        raise UserError(f"not {type(model).__name__}")

    with pytest.raises(UserError, match="not DocumentRQVAE"):
        build_trained(cfg, "", refuse)


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys\nfrom vidseg.commands import split_overrides\n"
        "split_overrides(['a.npy', 'Bi.f_dim', '8'])\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0

"""The commands: what they write, say and answer, and what they leave alone."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.projects.rqvae.command_ground import CONFIG, SMALL, WIDTH, make_documents, save_weights
from vidseg.config import load_config
from vidseg.errors import DataError, UserError
from vidseg.modeling import build_model
from vidseg.projects.rqvae.__main__ import main
from vidseg.projects.rqvae.codes_file import read_codes, write_codes
from vidseg.projects.rqvae.commands.search import METHODS
from vidseg.projects.rqvae.retrieval import METHODS as KNOWN_METHODS

Run = Callable[..., int]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_weights(tmp_path_factory.mktemp("weights") / "random.pth")


@pytest.fixture
def run(weights: Path) -> Run:
    """Runs a command of the small model."""

    def command(name: str, *words: object) -> int:
        model = ["--config-file", CONFIG, "--weights", weights]
        return main([name, *map(str, [*model, *words, *SMALL])])

    return command


@pytest.fixture
def codes(run: Run, tmp_path: Path) -> Path:
    folder = make_documents(tmp_path / "features")
    assert run("encode", "--input", folder, "--output", tmp_path / "codes.rqc") == 0
    return tmp_path / "codes.rqc"


def test_codes_and_features_are_those_of_the_model(
    codes: Path, run: Run, weights: Path, tmp_path: Path
) -> None:
    model = build_model(load_config(CONFIG, list(SMALL)))
    model.load_state_dict(torch.load(weights, weights_only=True)["model"])
    model.eval()
    out = tmp_path / "rebuilt"
    assert run("decode", "--input", codes, "--output", out) == 0
    documents = list(read_codes(codes, model))
    assert [one.meta["id"] for one in documents] == sorted(one.meta["id"] for one in documents)
    for one in documents:
        features = np.load(tmp_path / "features" / f"{one.meta['id']}.npy")
        expected = model.encode(torch.from_numpy(features))
        assert torch.equal(one.codes, expected.codes)
        rebuilt = np.load(out / f"{one.meta['id']}.npy")
        assert rebuilt.dtype == np.float32
        assert np.array_equal(rebuilt, model.decode(expected).numpy())
        assert rebuilt.shape == features.shape
    assert len(list(out.rglob("*.npy"))) == len(documents) == 6


def test_fewer_levels_are_the_first_ones(codes: Path, run: Run, tmp_path: Path) -> None:
    one = tmp_path / "features" / "rain" / "d2.npy"
    out = tmp_path / "two.rqc"
    assert run("encode", "--input", one, "--output", out, "--levels", 2) == 0
    (document,) = read_codes(out)
    whole = read_codes(codes).find("rain/d2")
    assert whole is not None
    assert document.meta["id"] == "d2"
    assert torch.equal(document.codes, whole.codes[:, :2])
    assert run("decode", "--input", out, "--output", tmp_path / "rebuilt") == 0


def test_a_damaged_document_is_left_out(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_documents(tmp_path / "features")
    (folder / "rain" / "d0.npy").write_bytes(b"no array")
    bad = np.load(folder / "sun" / "d1.npy")
    bad[3, 2] = np.nan
    np.save(folder / "sun" / "d1.npy", bad)
    np.save(folder / "sun" / "d3.npy", np.zeros((0, WIDTH), np.float32))
    np.save(folder / "sun" / "d5.npy", np.zeros((40, WIDTH + 1), np.float32))
    assert run("encode", "--input", folder, "--output", tmp_path / "codes.rqc") == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 4
    for name, error in zip(("rain/d0", "sun/d1", "sun/d3", "sun/d5"), errors, strict=True):
        assert f"{name}.npy" in error
    assert list(read_codes(tmp_path / "codes.rqc").ids()) == ["rain/d2", "rain/d4"]


def test_overrides_may_stand_anywhere(weights: Path, tmp_path: Path) -> None:
    folder, out = make_documents(tmp_path / "features"), tmp_path / "codes.rqc"
    pairs = [list(SMALL[i : i + 2]) for i in range(0, len(SMALL), 2)]
    options = [["--config-file", CONFIG], ["--weights", weights], ["--input", folder]]
    words = [
        word for couple in zip(pairs, options, strict=False) for part in couple for word in part
    ]
    rest = [word for pair in pairs[3:] for word in pair]
    assert main(["encode", *map(str, [*words, *rest[:4], "--output", out, *rest[4:]])]) == 0
    assert len(read_codes(out)) == 6


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "^--input is empty"),
        ("nowhere", "^--input: no data set is called 'nowhere'"),
        ("documents_syntetic_val", "nearest: documents_synthetic_val"),
        ("nowhere.json", "^--input: no such file: .*nowhere.json"),
        ("shapes_vis_easy_val", "^--input: shapes_vis_easy_val holds no features"),
        (str(CONFIG), "^--input: .*yaml is neither a feature file"),
    ],
)
def test_input_is_named(run: Run, tmp_path: Path, source: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        run("encode", "--input", source, "--output", tmp_path / "codes.rqc")
    assert not list(tmp_path.iterdir())


def test_an_id_that_no_file_can_hold_is_left_out(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_documents(tmp_path / "features", num=2)
    documents = [
        {"id": name, "path": f"{path}.npy"}
        for name, path in (("\ud800", "rain/d0"), ("x" * 70000, "rain/d0"), ("ok", "sun/d1"))
    ]
    (folder / "index.json").write_text(json.dumps({"documents": documents}))
    assert run("encode", "--input", folder, "--output", tmp_path / "codes.rqc") == 1
    first, second = capsys.readouterr().err.splitlines()
    assert "its id is no UTF-8 text" in first
    assert second.endswith("an id has 1 to 65535 bytes, this one has 70000")
    assert len(second) < 200
    assert list(read_codes(tmp_path / "codes.rqc").ids()) == ["ok"]


def test_without_a_sound_document_nothing_is_written(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "features"
    folder.mkdir()
    np.save(folder / "a.npy", np.full((30, WIDTH), np.nan, np.float32))
    with pytest.raises(DataError, match="not one document could be encoded"):
        run("encode", "--input", folder, "--output", tmp_path / "codes.rqc")
    assert [path.name for path in tmp_path.iterdir()] == ["features"]


@pytest.mark.parametrize("method", ["A/maxsim", "A/bag", "B", "B/continuous"])
def test_search(
    codes: Path, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    out = tmp_path / "hits.json"
    words = ("--codes", codes, "--method", method, "--output", out)
    assert run("search", *words, "--query", "rain/d2", "--top", 3) == 0
    content = json.loads(out.read_text())
    hits = [hit["id"] for hit in content["hits"]]
    assert (content["query"], content["method"], len(hits)) == ("rain/d2", method, 3)
    assert "rain/d2" not in hits
    similarities = [hit["similarity"] for hit in content["hits"]]
    assert similarities == sorted(similarities, reverse=True)
    shown = [line.split() for line in capsys.readouterr().out.splitlines()[-3:]]
    assert [(int(rank), name) for rank, _, name in shown] == list(enumerate(hits, 1))
    # The same document as a file of features finds itself; others may have its codes.
    file = tmp_path / "features" / "rain" / "d2.npy"
    assert run("search", *words, "--query", file) == 0
    found = {hit["id"]: hit["similarity"] for hit in json.loads(out.read_text())["hits"]}
    assert found["rain/d2"] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", ["rain/d9", "index.json", "notes.txt"])
def test_query_is_an_id_or_one_file(codes: Path, run: Run, tmp_path: Path, name: str) -> None:
    two = [{"id": one, "path": "features/rain/d0.npy"} for one in "ab"]
    (tmp_path / "index.json").write_text(json.dumps({"documents": two}))
    (tmp_path / "notes.txt").write_text("rain")
    word = str(tmp_path / name) if "." in name else name
    with pytest.raises(DataError, match=r"--query: .* holds no document"):
        run("search", "--codes", codes, "--query", word)


def test_methods_are_those_of_the_functions() -> None:
    assert METHODS == KNOWN_METHODS


def test_report(run: Run, tmp_path: Path) -> None:
    folder, out = make_documents(tmp_path / "features"), tmp_path / "report"
    assert run("report", "--input", folder, "--output", out, "--document", "sun/d3") == 0
    names = ["document.png", "retrieval.png", "snr_by_level.png", "usage.png"]
    assert sorted(path.name for path in out.iterdir()) == sorted([*names, "report.md"])
    page = (out / "report.md").read_text()
    for name in names:
        assert f"({name})" in page
        with Image.open(out / name) as image:
            assert min(image.size) > 200
    assert "6 documents" in page
    assert "sun/d3" in page
    assert "limited by the data" in page  # a few windows for 16 entries
    assert len([line for line in page.splitlines() if line[:6] in ("| 1   ", "| 3   ")]) == 2


def test_report_of_a_run(run: Run, weights: Path, tmp_path: Path) -> None:
    folder, run_dir = make_documents(tmp_path / "features", num=1), tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "config.yaml").write_text(load_config(CONFIG, list(SMALL)).dump())
    (run_dir / "model_final.pth").write_bytes(weights.read_bytes())
    assert main(["report", "--run", str(run_dir), "--input", str(folder)]) == 0
    assert (run_dir / "report" / "report.md").is_file()
    page = (run_dir / "report" / "report.md").read_text()
    assert "Evaluation" not in page
    # What an evaluation has left is told.
    results = run_dir / "inference" / "mine"
    results.mkdir(parents=True)
    (results / "metrics.json").write_text(
        '{"reconstruction/SNR": 7.25, "retrieval/C/recall@1": null}'
    )
    (results / "report.md").write_text("all tables")
    assert main(["report", "--run", str(run_dir), "--input", str(folder)]) == 0
    page = (run_dir / "report" / "report.md").read_text()
    assert "Evaluation of the run on mine" in page
    assert "| reconstruction/SNR | 7.250   |" in page
    assert "recall@1" not in page
    assert "(../inference/mine/report.md)" in page
    # One document finds no other.
    assert not (run_dir / "report" / "retrieval.png").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "either --run DIR or --config-file F"),
        (("--run", "r", "--config-file", "f"), "either --run DIR or --config-file F"),
        (("--run", "nowhere"), "--run nowhere is no run: it has no config.yaml"),
        (("--config-file", "f.yaml"), "--output DIR is needed"),
    ],
)
def test_report_needs_one_model(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        main(["report", *words])


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x", "a//b", "a\x00b", "a\\b", ".."])
def test_no_id_leads_out_of_the_folder(
    codes: Path, run: Run, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = read_codes(codes)
    first, second, *_ = opened
    write_codes(codes, [replace(first, meta={"id": name}), second], opened.header)
    out = tmp_path / "deep" / "rebuilt"
    before = sorted(tmp_path.rglob("*"))
    assert run("decode", "--input", codes, "--output", out) == 1
    assert f"document {name!r}: its id cannot be the name of a file" in capsys.readouterr().err
    added = set(tmp_path.rglob("*")) - set(before)
    kept = out / f"{second.meta['id']}.npy"
    assert added == {out.parent, out, kept.parent, kept}


def test_help_needs_neither_torch_nor_numpy() -> None:
    program = (
        "import runpy, sys\n"
        "for words in ('', 'encode ', 'decode ', 'search ', 'report '):\n"
        "    sys.argv = ['rqvae', *(words + '--help').split()]\n"
        "    try: runpy.run_module('vidseg.projects.rqvae', run_name='__main__')\n"
        "    except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'numpy', 'matplotlib'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("python -m vidseg.projects.rqvae encode --config-file") >= 2
    assert done.stdout.count("example") >= 5

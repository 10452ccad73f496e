from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.datasets.wavs import write_wav
from vidseg.errors import DataError, UserError

RULES = (r"(\w+)/skip/=", r"(\w+)/(digits|letters)/=\1/\2", r"(\w+)/vm-=\1/voicemail")


@pytest.fixture
def script() -> Any:
    return importlib.import_module("prepare_audio_features")


@pytest.fixture
def log_mel() -> Any:
    return importlib.import_module("log_mel")


def _tone(hertz: float, seconds: float, rate: int = 8000) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Two voices with two kinds of prompts each, of half a second to one, and files of neither."""
    folder = tmp_path / "recordings"
    for v, voice in enumerate(("anna", "ben")):
        for k in range(6):
            sound = _tone(200 + 100 * k + 1500 * v, 0.5 + 0.1 * k)
            write_wav(folder / voice / "digits" / f"{k}.wav", sound)
            rate = (8000, 16000, 44100)[k % 3]
            write_wav(folder / voice / f"vm-{k}.wav", _tone(900, 0.6, rate), rate=rate)
        write_wav(folder / voice / "skip" / "silence.wav", np.zeros(800))
        write_wav(folder / voice / "other.wav", np.zeros(800))
    return folder


def _run(script: Any, recordings: Path, out: Path, *more: str) -> dict[str, dict[str, Any]]:
    """Makes short documents; gives index and recordings of both parts."""
    words = [str(recordings), str(out), "--seconds", "2", "--val-documents", "3", *more]
    if "--topics" not in more:
        words += ["--topics", *RULES]
    script.main(words)
    return {
        part.name: {
            "index": json.loads((part / "index.json").read_text()),
            "recordings": json.loads((part / "recordings.json").read_text()),
        }
        for part in out.iterdir()
    }


def _heard(part: dict[str, Any]) -> set[str]:
    return {path for pieces in part["recordings"].values() for path, _, _ in pieces}


def test_topics_and_documents(script: Any, recordings: Path, tmp_path: Path) -> None:
    parts = _run(script, recordings, tmp_path / "out")
    topics = ["anna/digits", "anna/voicemail", "ben/digits", "ben/voicemail"]
    for part, found in parts.items():
        index = found["index"]
        assert index["topics"] == topics
        assert (index["frame_rate"], index["feature_dim"]) == (50, 1024)
        assert len({document["id"] for document in index["documents"]}) == len(index["documents"])
        for document in index["documents"]:
            features = np.load(tmp_path / "out" / part / document["path"])
            assert (features.shape, features.dtype) == ((100, 1024), np.float16)
            assert document["length"] == 100
            assert np.isfinite(features).all()
            pieces = found["recordings"][document["id"]]
            assert sum(seconds for _, _, seconds in pieces) == pytest.approx(2)
            folder = document["topic"].replace("voicemail", "vm-")
            assert all(path.startswith(folder) for path, _, _ in pieces)
    counts = [document["topic"] for document in parts["val"]["index"]["documents"]]
    assert [counts.count(topic) for topic in topics] == [3, 3, 3, 3]


def test_held_out_recordings_are_never_trained_on(
    script: Any, recordings: Path, tmp_path: Path
) -> None:
    parts = _run(script, recordings, tmp_path / "out")
    train, val = _heard(parts["train"]), _heard(parts["val"])
    assert not train & val
    assert (len(train), len(val)) == (4 * 4, 4 * 2)  # each of them is used


def test_the_same_command_gives_the_same_bytes(
    script: Any, recordings: Path, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        _run(script, recordings, tmp_path / name)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    assert len(files) > 20
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_seed_decides_what_is_held_out(script: Any, recordings: Path, tmp_path: Path) -> None:
    held = [
        _heard(_run(script, recordings, tmp_path / seed, "--seed", seed)["val"]) for seed in "123"
    ]
    assert held[0] != held[1] or held[1] != held[2]


def test_damaged_recordings_are_left_out_alone(
    script: Any, recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = _run(script, recordings, tmp_path / "before")
    path = recordings / "anna" / "digits" / "3.wav"
    path.write_bytes(path.read_bytes()[:-100])
    capsys.readouterr()
    words = [str(recordings), str(tmp_path / "out"), "--seconds", "2", "--val-documents", "3"]
    assert script.main([*words, "--topics", *RULES]) == 1
    assert capsys.readouterr().err.count("3.wav is cut off") == 1
    for part in ("train", "val"):
        content = (tmp_path / "out" / part / "recordings.json").read_text()
        after = {path for pieces in json.loads(content).values() for path, _, _ in pieces}
        assert after == _heard(before[part]) - {"anna/digits/3.wav"}


def test_folders_are_topics_without_rules(script: Any, recordings: Path, tmp_path: Path) -> None:
    write_wav(recordings / "top.wav", _tone(100, 1))
    words = [str(recordings), str(tmp_path / "out"), "--seconds", "1", "--val-documents", "1"]
    assert script.main(words) == 0
    index = json.loads((tmp_path / "out" / "train" / "index.json").read_text())
    inner = ["anna", "anna/digits", "anna/skip", "ben", "ben/digits", "ben/skip"]
    assert index["topics"] == [*inner, "recordings"]
    # A single recording cannot be held out.
    held = json.loads((tmp_path / "out" / "val" / "index.json").read_text())["documents"]
    assert {d["topic"] for d in held} == {"anna", "anna/digits", "ben", "ben/digits"}


def test_nothing_held_out(script: Any, recordings: Path, tmp_path: Path) -> None:
    parts = _run(script, recordings, tmp_path / "out", "--val-share", "0")
    assert list(parts) == ["train"]
    assert len(_heard(parts["train"])) == 24


def test_long_recordings_are_cut(script: Any, tmp_path: Path) -> None:
    for k, seconds in enumerate((5.0, 0.3, 4.5, 2.2)):
        write_wav(tmp_path / "talks" / "a" / f"{k}.wav", _tone(300, seconds))
    parts = _run(
        script,
        tmp_path / "talks",
        tmp_path / "out",
        *("--documents", "cut", "--val-share", "0", "--topics", r"(\w+)=\1"),
    )
    pieces = [piece for (piece,) in parts["train"]["recordings"].values()]
    assert pieces == [
        *(["a/0.wav", 0, 2], ["a/0.wav", 2, 2], ["a/0.wav", 4, 1]),
        ["a/1.wav", 0, 0.3],
        *(["a/2.wav", 0, 2], ["a/2.wav", 2, 2]),  # half a second is left over
        ["a/3.wav", 0, 2],
    ]
    lengths = [document["length"] for document in parts["train"]["index"]["documents"]]
    assert lengths == [100, 100, 50, 15, 100, 100, 100]


def test_ends_that_are_never_heard_are_told(
    script: Any, recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_wav(recordings / "ben" / "digits" / "long.wav", _tone(300, 5))
    _run(script, recordings, tmp_path / "out")
    assert "1 recordings are longer than a document" in capsys.readouterr().out


def test_data_set_can_be_read(script: Any, recordings: Path, tmp_path: Path) -> None:
    features = pytest.importorskip("vidseg.data.features")
    _run(script, recordings, tmp_path / "out")
    records = features.load_feature_index(tmp_path / "out" / "val" / "index.json")
    assert not records.damaged
    assert {record["topic"] for record in records} == {0, 1, 2, 3}
    assert {(record["length"], record["frame_rate"]) for record in records} == {(100, 50)}


@pytest.mark.parametrize(
    ("words", "message", "exit_code"),
    [
        (["absent", "out"], "there is no folder absent", 1),
        (["empty", "out"], "no wav file in empty", 1),
        (["broken", "out"], "not one of the 1 wav files in broken can be used", 1),
        (["single", "out"], "no topic of single has two recordings", 1),
        (["pair", "full"], "full is there already", 2),
        (["pair", "full/file"], "file is there already", 2),
        (["pair", "full/file/out"], "cannot be made", 2),
        (["pair", "out", "--topics", "no rule"], "'no rule' is no rule; write PATTERN=TOPIC", 2),
        (["pair", "out", "--topics", "(=a"], "is no rule", 2),
        (["pair", "out", "--topics", r"x=\1"], "is no rule", 2),
        (["pair", "out", "--topics", "x=y"], "none of the 2 wav files in pair fits", 1),
        (["pair", "out", "--topics", ".*/0=a/b", ".*=a_b"], "'a/b' and 'a_b'", 1),
        (["pair", "out", "--topics", f".*={'x' * 300}"], "too long", 1),
        (["pair", "out", "--sample-rate", "11025"], "--sample-rate 11025 does not fit", 2),
    ],
)
def test_faults(
    script: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    message: str,
    exit_code: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("full").mkdir()
    Path("full/file").write_text("mine")
    write_wav(Path("broken/a/0.wav"), np.zeros(0))
    write_wav(Path("single/a/0.wav"), _tone(300, 1))
    for k in range(2):
        write_wav(Path(f"pair/a/{k}.wav"), _tone(300, 1))
    with pytest.raises(UserError) as caught:
        script.main(words)
    assert message in str(caught.value)
    assert caught.value.exit_code == exit_code
    assert sorted(path.name for path in Path().iterdir()) == sorted(
        ["broken", "empty", "full", "pair", "single"]
    )
    assert [path.read_text() for path in Path("full").iterdir()] == ["mine"]


@pytest.mark.parametrize("option", [("--val-share", "1"), ("--seconds", "0"), ("--passes", "x")])
def test_numbers_out_of_range(
    script: Any, capsys: pytest.CaptureFixture[str], option: tuple[str, str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        script.parse(["in", "out", *option])
    assert caught.value.code == 2
    assert option[0] in capsys.readouterr().err


def test_a_recording_that_vanishes_leaves_nothing(
    script: Any, recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = script._open_topics

    def open_and_lose(args: Any) -> Any:
        topics = opened(args)
        (recordings / "ben" / "digits" / "0.wav").unlink()
        return topics

    monkeypatch.setattr(script, "_open_topics", open_and_lose)
    with pytest.raises(DataError, match="cannot be read"):
        _run(script, recordings, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["recordings"]


def test_full_disk_leaves_nothing(recordings: Path, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    script = Path(__file__).parents[2] / "datasets" / "prepare_audio_features.py"
    done = subprocess.run(
        [sys.executable, str(script), str(recordings), str(tmp_path / "out")],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "ulimit -f" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["recordings"]


# Numerics


def test_energies_are_those_of_the_definition(log_mel: Any) -> None:
    """A frame by hand: Hann window of 200, transform of 256 as a sum, triangles over the bins."""
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, 1000)
    frame, band = 3, 40
    samples = sound[3 * 160 - 100 : 3 * 160 + 100]
    n = np.arange(200)
    windowed = samples * (0.5 - 0.5 * np.cos(2 * np.pi * n / 200))
    bins = np.arange(129)
    power = np.abs(np.exp(-2j * np.pi * np.outer(bins, n) / 256) @ windowed) ** 2

    def hertz(point: int) -> float:
        low, high = (2595 * np.log10(1 + f / 700) for f in (20, 4000))
        return 700 * (10 ** ((low + (high - low) * point / 65) / 2595) - 1)

    triangle = np.interp(bins * 31.25, [hertz(band + k) for k in range(3)], [0, 1, 0])
    expected = np.log((triangle / triangle.sum()) @ power + 1e-4)
    assert log_mel.log_mel(sound, 8000)[frame, band] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("rate", [8000, 16000, 48000])
def test_frames_follow_the_sound(log_mel: Any, rate: int) -> None:
    sound = np.concatenate([np.zeros(rate), _tone(1000, 1, rate)])
    mel = log_mel.log_mel(sound, rate)
    assert mel.shape == (100, 64)
    assert mel[:48] == pytest.approx(np.log(1e-4))
    loudest = mel[55:95].argmax(1)
    assert (loudest == loudest[0]).all()
    assert len(log_mel.log_mel(sound[:1], rate)) == 1


def test_long_sound_is_that_of_its_parts(log_mel: Any) -> None:
    mel = np.random.default_rng(0).standard_normal((1203, 64))
    whole = log_mel.spread(mel)
    assert whole.shape == (1203, 1024)
    part = log_mel.spread(mel[480:520])[5:-5]
    np.testing.assert_allclose(whole[485:515], part, atol=1e-5)


def test_projection_keeps_lengths(log_mel: Any) -> None:
    mel = np.random.default_rng(0).standard_normal((11, 64))
    assert np.linalg.norm(log_mel.spread(mel)[5]) == pytest.approx(np.linalg.norm(mel), rel=1e-6)


def test_published_features_stay_as_they_are(log_mel: Any) -> None:
    """Models are trained on them: another projection or scale would be another data set."""
    sound = _tone(440, 1) + _tone(1234.5, 1) ** 3
    features = log_mel.spread(log_mel.log_mel(sound, 8000))
    assert features[20, :4] == pytest.approx([4.1237, 8.0258, -4.3273, 6.1379], abs=1e-3)

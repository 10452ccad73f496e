"""What a benchmark counts, in which order, and how a ratio is made of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import catalog, child, measure, session
from benchmarks.case import Case, Checkout, Package, Run
from benchmarks.measure import Figure, MeasureError, Usage
from vidseg.errors import UserError


def case(bars: dict[str, float], log: list[str] | None = None, **options: object) -> Case:
    log = [] if log is None else log

    def side(name: str) -> Callable[[], Run]:
        def prepare() -> Run:
            log.append(f"prepare {name}")
            return lambda: log.append(name)

        return prepare

    return Case(
        name="toy",
        about="a toy",
        peer="another",
        bars=bars,
        ours=side("ours"),
        theirs=side("theirs"),
        **options,  # type: ignore[arg-type]
    )


def feed(monkeypatch: pytest.MonkeyPatch, name: str, usages: list[Usage]) -> None:
    given = iter(usages)

    def answer(*call: object) -> Usage:
        if callable(call[0]):
            call[0]()
        return next(given)

    monkeypatch.setattr(measure, name, answer)


def test_sides_alternate_after_their_warm_ups() -> None:
    log: list[str] = []
    measure.measure(case({"cpu": 1}, log, repeats=2, warmups=1))
    warm = ["prepare ours", "ours", "prepare theirs", "theirs"]
    assert log == [*warm, "ours", "theirs", "ours", "theirs"]


def test_time_is_peer_over_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = [2, 3, 1, 4, 4, 2]  # ours, theirs, ours, ...
    feed(monkeypatch, "measure_call", [Usage(cpu=s, peak=0) for s in seconds])
    (figure,) = measure.measure(case({"cpu": 1.5}), repeats=3)
    assert (figure.ours, figure.peer, figure.ratio) == (2, 3, 1.5)
    assert figure.spread == (0.5, 4)
    assert figure.reached
    assert figure.samples == {"ours": [2, 1, 4], "theirs": [3, 4, 2]}


def test_memory_is_ours_over_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    feed(monkeypatch, "_run_child", [Usage(cpu=1, peak=500), Usage(cpu=5, peak=1000)])
    time, memory = measure.measure(case({"cpu": 2, "peak": 0.45}, log), repeats=1)
    assert (time.ratio, time.reached) == (5, True)
    assert (memory.ratio, memory.reached) == (0.5, False)
    assert log == []  # nothing of a memory case happens in this process


def test_processes_of_a_side_are_charged_to_it() -> None:
    import subprocess
    import sys

    burn = "sum(range(10**7)); x = bytearray(10**8); x[::4096] = x[::4096]"
    usage = measure.measure_call(lambda: subprocess.run([sys.executable, "-c", burn], check=True))
    assert usage.cpu > 0.05
    assert usage.peak > 95


def test_unknown_quantities_are_refused() -> None:
    for bars in ({}, {"wall": 1.0}):
        with pytest.raises(ValueError, match="set cpu, peak or both"):
            case(bars)


@pytest.mark.slow
def test_a_side_in_its_own_process() -> None:
    (real,) = catalog.select(["deformable_small"])
    usage = measure._run_child(real, "ours")
    assert usage.cpu > 0
    assert usage.peak > 50


def test_a_side_that_fails_is_named_with_its_last_words() -> None:
    (real,) = catalog.select(["deformable_small"])
    with pytest.raises(MeasureError, match=r"nobody of deformable_small failed: .*nobody"):
        measure._run_child(real, "nobody")


def test_the_process_of_a_side_answers_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    child.main("deformable_small", "ours")
    assert set(json.loads(capsys.readouterr().out)) == {"cpu", "peak"}


@pytest.mark.parametrize("name", ["deformable_small", "channels_last_train", "bf16_train"])
def test_our_side_runs(name: str) -> None:
    (real,) = catalog.select([name])
    assert measure.measure_call(measure.prepare(real.ours, warmups=0)).cpu > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deformable_360", "frame_segmenter_384"])
def test_both_sides_give_the_same_kind_of_result(name: str) -> None:
    pytest.importorskip("transformers")
    (real,) = catalog.select([name])
    ours, theirs = (measure.prepare(side, warmups=0)() for side in (real.ours, real.theirs))
    if name.startswith("deformable"):
        for one, other in zip(ours, theirs, strict=True):
            assert one.shape == other.shape
    else:
        assert ours.masks.shape == theirs.masks_queries_logits.shape
        assert ours.logits.shape == theirs.class_queries_logits.shape


def test_names_pick_groups_and_cases() -> None:
    everything = [one.name for one in catalog.select([])]
    assert len(everything) == len(set(everything))
    assert not set(everything) & set(catalog.GROUPS)
    group = [one.name for one in catalog.select(["dvis_daq"])]
    assert "deformable_480" in group
    assert [c.name for c in catalog.select(["deformable_480", "dvis_daq"])] == group
    with pytest.raises(UserError, match="no benchmark 'deformable_48'; nearest: deformable_480"):
        catalog.select(["deformable_48"])


def test_a_missing_peer_is_skipped_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VIDSEG_PEERS", str(tmp_path))
    needs = (
        Package("no_such_module", install="pip install it"),
        Checkout("theirs", url="https://example.org/theirs.git", holds="model.py"),
    )
    out = tmp_path / "new" / "figures.json"
    assert session.run([case({"cpu": 1}, needs=needs)], json_file=out) == 0
    said = capsys.readouterr().err
    assert "toy skipped: no_such_module is not installed: pip install it; " in said
    assert f"git clone https://example.org/theirs.git {tmp_path / 'theirs'}" in said
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "model.py").touch()
    assert needs[1].missing() is None


def test_a_case_that_breaks_off_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> Usage:
        raise MeasureError("theirs of toy failed: out of memory")

    monkeypatch.setattr(measure, "_run_child", broken)
    feed(monkeypatch, "measure_call", [Usage(cpu=1, peak=0), Usage(cpu=3, peak=0)])
    out = tmp_path / "figures.json"
    code = session.run([case({"peak": 1}), case({"cpu": 2})], repeats=1, json_file=out)
    written = json.loads(out.read_text())
    assert code == 1
    assert written["skipped"] == {"toy": "theirs of toy failed: out of memory"}
    assert [(f["quantity"], f["ratio"], f["reached"]) for f in written["figures"]] == [
        ("cpu", 3, True)
    ]
    shown = capsys.readouterr().out.splitlines()
    assert [cell.strip() for cell in shown[2].split("|")[1:-1]] == [
        *("toy", "CPU s", "1", "3", "3.00", "3.00 to 3.00", ">= 2")
    ]


def test_a_missed_bar_is_marked_and_ends_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    figure = Figure("toy", "peak", 9, 10, 0.9, (0.9, 0.9), 0.45, {})
    monkeypatch.setattr(session, "measure", lambda *_, **__: [figure])
    assert session.run([case({"peak": 0.45})]) == 1
    assert "<= 0.45 missed" in capsys.readouterr().out

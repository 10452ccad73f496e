"""The loop alone: accumulation, bad losses, dying loaders, precision, averages."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vidseg.checkpoint import Checkpointer
from vidseg.config import get_cfg
from vidseg.data.sample_loader import WorkerError
from vidseg.engine.batches import TrainingError, seed_iteration
from vidseg.engine.ema import EmaHook
from vidseg.engine.hooks import CheckpointHook
from vidseg.engine.logging_hooks import LogHook
from vidseg.engine.precision import Precision
from vidseg.engine.trainer import Trainer
from vidseg.engine.writers import METRICS_LINES, JsonLinesWriter
from vidseg.errors import ConfigError, DataError
from vidseg.solver import IterationSchedule

Sample = dict[str, Any]


class Linear(nn.Module):
    """Regresses ``y`` from ``x``; the loss is a mean over the samples."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 1)

    def forward(self, samples: list[Sample]) -> dict[str, Tensor]:
        x = torch.stack([sample["x"] for sample in samples])
        y = torch.stack([sample["y"] for sample in samples])
        return {"loss": (self.linear(x)[:, 0] - y).square().mean()}


def batch(iteration: int, size: int = 4) -> list[Sample]:
    rng = torch.Generator().manual_seed(iteration)
    return [
        {
            "x": torch.randn(3, generator=rng),
            "y": torch.randn((), generator=rng),
            "video_id": 10 * iteration + number,
            "file_names": [f"video{10 * iteration + number}/0.jpg"],
            "frame_indices": [number, number + 1],
        }
        for number in range(size)
    ]


def endless(start: int) -> Iterator[list[Sample]]:
    while True:
        yield batch(start)
        start += 1


def make_trainer(model: nn.Module | None = None, **options: Any) -> Trainer:
    torch.manual_seed(0)
    model = model or Linear()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    settings: dict[str, Any] = {
        "make_loader": endless,
        "clip": lambda parameters: nn.utils.clip_grad_norm_(parameters, 1.0),
        "max_iter": 6,
    }
    settings.update(options)
    loader = settings.pop("make_loader")
    return Trainer(
        model, optimizer, IterationSchedule(optimizer, lambda i: 1.0), loader, **settings
    )


def weight(trainer: Trainer) -> Tensor:
    return next(trainer.model.parameters()).detach().clone()


def spoil(samples: list[Sample], number: int) -> list[Sample]:
    samples[number]["x"] = torch.full((3,), float("nan"))
    return samples


@pytest.mark.parametrize("accumulation", [2, 3, 4, 9])
def test_accumulation_changes_nothing(accumulation: int) -> None:
    whole, parts = make_trainer(), make_trainer(accumulation=accumulation)
    whole.train()
    parts.train()
    torch.testing.assert_close(weight(parts), weight(whole), atol=1e-6, rtol=1e-5)
    assert parts.scalars.latest()["total_loss"] == pytest.approx(
        whole.scalars.latest()["total_loss"]
    )


def test_samples_know_the_iteration() -> None:
    seen = []

    class Watching(Linear):
        def forward(self, samples: list[Sample]) -> dict[str, Tensor]:
            seen.append((samples[0]["iteration"], samples[-1]["max_iter"]))
            return super().forward(samples)

    make_trainer(Watching(), max_iter=3).train()
    assert seen == [(0, 3), (1, 3), (2, 3)]


class Figured(Linear):
    """Gives a figure beside its loss: a large one, then one that is no number."""

    def forward(self, samples: list[Sample]) -> dict[str, Tensor]:
        figure = 100.0 if samples[0]["iteration"] < 3 else float("nan")
        return {"error/worst": torch.tensor(figure), **super().forward(samples)}


@pytest.mark.parametrize("accumulation", [1, 2])
def test_figures_are_logged_and_not_minimised(accumulation: int, tmp_path: Path) -> None:
    plain = make_trainer(accumulation=accumulation)
    torch.manual_seed(0)
    figured = make_trainer(Figured(), accumulation=accumulation)
    figured.hooks.append(LogHook(1, lambda start: [JsonLinesWriter(tmp_path, start)]))
    plain.train()
    figured.train()
    torch.testing.assert_close(weight(figured), weight(plain), atol=0, rtol=0)
    assert figured.scalars.latest()["total_loss"] == plain.scalars.latest()["total_loss"]
    lines = [json.loads(line) for line in (tmp_path / METRICS_LINES).read_text().splitlines()]
    assert [line["error/worst"] for line in lines[:3]] == [100.0] * 3


def test_bad_sample_is_named_and_skipped(caplog: pytest.LogCaptureFixture) -> None:
    def loader(start: int) -> Iterator[list[Sample]]:
        for iteration, samples in enumerate(endless(start), start):
            yield spoil(samples, 1) if iteration == 2 else samples

    trainer = make_trainer(make_loader=loader)
    trainer.train()
    assert trainer.iteration == 6
    assert torch.isfinite(weight(trainer)).all()
    assert trainer.num_nan_steps == 0
    (record,) = [r for r in caplog.records if "not finite" in r.message]
    assert "video 21, video21/0.jpg, frames [1, 2]" in record.message
    assert "video 20" not in record.message
    assert "iteration 2: loss not finite" in record.message


def test_one_bad_video_among_a_hundred_changes_nothing_for_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The weights are, to the bit, those of a run that never saw its batch."""
    batches = [batch(number) for number in range(25)]
    others = [samples for number, samples in enumerate(batches) if number != 9]
    spoil(batches[9], 2)
    with_it = make_trainer(make_loader=lambda start: iter(batches[start:]), max_iter=25)
    without = make_trainer(make_loader=lambda start: iter(others[start:]), max_iter=24)
    with_it.train()
    without.train()
    assert torch.equal(weight(with_it), weight(without))
    assert with_it.scalars.smoothed()["skipped_steps"] == 1
    assert "skipped_steps" not in without.scalars.smoothed()
    assert "1 of 25 steps were skipped" in caplog.text
    assert caplog.text.count("video 92, video92/0.jpg, frames [2, 3]") == 1


def test_skipped_steps_are_counted_across_a_restart() -> None:
    def loader(start: int) -> Iterator[list[Sample]]:
        for iteration, samples in enumerate(endless(start), start):
            yield spoil(samples, 0) if iteration % 2 else samples

    trainer, continued = make_trainer(make_loader=loader), make_trainer(make_loader=loader)
    trainer.max_iter = 4
    trainer.train()
    continued.load_state_dict(trainer.state_dict())
    continued.train()
    assert continued.scalars.smoothed()["skipped_steps"] == 3


def test_bad_step_changes_no_weight() -> None:
    trainer = make_trainer(make_loader=lambda start: iter([spoil(batch(0), 0)]), max_iter=1)
    before = weight(trainer)
    trainer.train()
    assert torch.equal(weight(trainer), before)


def test_endless_bad_steps_stop_the_run() -> None:
    trainer = make_trainer(
        make_loader=lambda start: (spoil(samples, 0) for samples in endless(start)),
        max_nan_steps=3,
    )
    with pytest.raises(TrainingError, match=r"3 steps in a row.*MAX_NAN_STEPS.*iteration 2"):
        trainer.train()


def test_bad_gradient_with_a_finite_loss_is_skipped(caplog: pytest.LogCaptureFixture) -> None:
    class Root(Linear):
        def forward(self, samples: list[Sample]) -> dict[str, Tensor]:
            return {"loss": (self.linear.weight.sum() * 0).sqrt()}

    trainer = make_trainer(Root(), max_iter=2)
    before = weight(trainer)
    trainer.train()
    assert torch.equal(weight(trainer), before)
    assert "the gradient is not finite" in caplog.text


@pytest.mark.parametrize(
    "error",
    [RuntimeError("DataLoader worker (pid 7) is killed"), WorkerError("it died")],
)
def test_loader_starts_again_where_it_died(error: Exception) -> None:
    starts = []

    def loader(start: int) -> Iterator[list[Sample]]:
        starts.append(start)
        for iteration, samples in enumerate(endless(start), start):
            if iteration == 3 and len(starts) < 3:
                raise error
            yield samples

    trainer, plain = make_trainer(make_loader=loader), make_trainer()
    trainer.train()
    plain.train()
    assert starts == [0, 3, 3]
    assert torch.equal(weight(trainer), weight(plain))


def test_loader_that_keeps_dying_stops_the_run() -> None:
    def loader(start: int) -> Iterable[list[Sample]]:
        raise RuntimeError("DataLoader worker (pid 7) is killed")

    with pytest.raises(TrainingError, match="NUM_WORKERS"):
        make_trainer(make_loader=loader).train()


def test_other_loader_errors_pass() -> None:
    def loader(start: int) -> Iterable[list[Sample]]:
        raise DataError("frame x is broken")

    with pytest.raises(DataError, match="frame x"):
        make_trainer(make_loader=loader).train()


def test_state_of_another_model_is_refused() -> None:
    state = make_trainer().state_dict()
    state["model"] = {"other": torch.zeros(1)}
    with pytest.raises(DataError, match="another model"):
        make_trainer().load_state_dict(state)


def test_draws_depend_on_seed_rank_and_iteration() -> None:
    def draw(*numbers: int) -> float:
        seed_iteration(*numbers)
        return float(torch.rand(()))

    draws = [draw(0, 0, 0), draw(1, 0, 0), draw(0, 1, 0), draw(0, 0, 1)]
    assert len(set(draws)) == 4
    assert draw(0, 0, 0) == draws[0]


def test_bfloat16_trains_on_cpu() -> None:
    trainer = make_trainer(precision=Precision("cpu", torch.bfloat16), max_iter=3)
    trainer.train()
    assert weight(trainer).dtype == torch.float32
    assert torch.isfinite(weight(trainer)).all()


def test_half_precision_becomes_bfloat16_without_loss_scaling() -> None:
    cfg = get_cfg()
    assert Precision.from_config(cfg, torch.device("cpu")).dtype is None
    cfg.SOLVER.AMP.ENABLED = True
    assert Precision.from_config(cfg, torch.device("cpu")).dtype == torch.bfloat16
    cfg.SOLVER.AMP.DTYPE = "float8"
    with pytest.raises(ConfigError, match=r"SOLVER.AMP.DTYPE 'float8'"):
        Precision.from_config(cfg, torch.device("cpu"))


def test_average_of_weights() -> None:
    trainer = make_trainer(max_iter=1)
    before = weight(trainer)
    ema = EmaHook(trainer.model, decay=0.5)
    trainer.hooks.append(ema)
    trainer.train()
    share = 1 - (1 + 1) / (10 + 1)  # the first decays are lower than the one asked for
    expected = before + share * (weight(trainer) - before)
    live = weight(trainer)
    with ema.applied():
        torch.testing.assert_close(weight(trainer), expected)
    assert torch.equal(weight(trainer), live)


def test_decay_must_be_a_share() -> None:
    with pytest.raises(ConfigError, match="DECAY"):
        EmaHook(Linear(), decay=1.0)


def test_full_disk_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    checkpointer = Checkpointer(tmp_path)
    original = checkpointer.save_periodic

    def save(iteration: int, content: dict[str, Any]) -> Path:
        if iteration == 2:
            raise OSError(28, "No space left on device")
        return original(iteration, content)

    monkeypatch.setattr(checkpointer, "save_periodic", save)
    trainer = make_trainer(max_iter=4)
    trainer.hooks.append(CheckpointHook(checkpointer, period=1))
    trainer.train()
    assert "No space left" in caplog.text
    assert len(checkpointer.periodic()) == 3

"""vidseg's data, optimizer and evaluators in detectron2's ``DefaultTrainer``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from vidseg import solver
from vidseg.evaluation.base import inference_dir
from vidseg.solver.schedule import schedule_factor

from .config import from_d2_config
from .evaluation import AdaptedEvaluator, build_evaluator
from .loading import Inputs, build_test_loader, build_train_loader

__all__ = ["TrainerMixin"]


class TrainerMixin:
    """Replaces what ``DefaultTrainer`` builds, by its own names; see there for the arguments.

    ::

        class Trainer(d2.TrainerMixin, DefaultTrainer):
            pass

    The config is detectron2's, with vidseg's keys: ``to_d2_config`` gives one. Data, optimizer,
    schedule and evaluators are then those that vidseg's own trainer would take, and a run that is
    resumed goes on in the data where it stopped.
    """

    @classmethod
    def build_train_loader(cls, cfg: Any) -> Iterable[Inputs]:
        """Builds the endless loader of ``DATASETS.TRAIN``."""
        return build_train_loader(from_d2_config(cfg))

    @classmethod
    def build_test_loader(cls, cfg: Any, dataset_name: str) -> Iterable[Inputs]:
        """Builds the loader of a test set, one video per batch."""
        return build_test_loader(from_d2_config(cfg), dataset_name)

    @classmethod
    def build_evaluator(cls, cfg: Any, dataset_name: str) -> AdaptedEvaluator:
        """Builds the evaluator of a test set; it writes to ``OUTPUT_DIR/inference/NAME``."""
        folder = inference_dir(cfg.OUTPUT_DIR, dataset_name)
        return build_evaluator(from_d2_config(cfg), dataset_name, folder)

    @classmethod
    def build_optimizer(cls, cfg: Any, model: nn.Module) -> torch.optim.Optimizer:
        """Builds the optimizer of ``SOLVER``; detectron2 has SGD alone.

        It clips gradients itself, before every step, if ``SOLVER.CLIP_GRADIENTS`` says so:
        detectron2 has no place for the norm over all parameters (``full_model``).
        """
        ours = from_d2_config(cfg)
        optimizer = solver.build_optimizer(ours, model)
        if ours.SOLVER.CLIP_GRADIENTS.ENABLED:
            clip = solver.build_clipper(ours)
            learnt = [p for group in optimizer.param_groups for p in group["params"]]

            def clip_first(*_: Any) -> None:
                clip([p for p in learnt if p.grad is not None])

            optimizer.register_step_pre_hook(clip_first)
        return optimizer

    @classmethod
    def build_lr_scheduler(
        cls, cfg: Any, optimizer: torch.optim.Optimizer
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Builds the schedule of ``SOLVER``; detectron2 does not know all of them."""
        factor = schedule_factor(from_d2_config(cfg))
        return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)

    def resume_or_load(self, resume: bool = True) -> None:
        """Resumes, in the data as well; else loads ``MODEL.WEIGHTS``."""
        trainer: Any = self
        super().resume_or_load(resume)  # type: ignore[misc]
        if trainer.start_iter:
            ours = from_d2_config(trainer.cfg)
            trainer._trainer.reset_data_loader(
                lambda: build_train_loader(ours, start_iteration=trainer.start_iter)
            )

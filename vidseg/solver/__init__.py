"""Optimisers, gradient clipping and learning-rate schedules."""

from .optimizer import ParameterSetting, build_clipper, build_optimizer, parameter_settings
from .schedule import IterationSchedule, build_scheduler

__all__ = [
    "IterationSchedule",
    "ParameterSetting",
    "build_clipper",
    "build_optimizer",
    "build_scheduler",
    "parameter_settings",
]

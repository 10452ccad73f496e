"""Weights that follow from their names, as in the recorded cases of ``tests/golden/dvis_daq``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from tests.golden_utils import GoldenCase

__all__ = ["set_rule_weights"]


def set_rule_weights(model: nn.Module, case: GoldenCase) -> None:
    """Gives a model the weights of a recorded case, one by one: the peak is not to be the start."""
    from tests.golden_utils import rule_state_dict

    for name, own in model.state_dict().items():
        for value in rule_state_dict([(name, own.shape)], case.overrides).values():
            own.copy_(value)

"""Statistics of valid frames, there and back."""

from __future__ import annotations

import torch

from vidseg.layers import Standardisation


def test_statistics_of_valid_frames() -> None:
    documents = [1e4 + 1e-2 * torch.randn(50, 4), 1e4 + 1e-2 * torch.randn(7, 4)]
    documents[1][3:] = torch.nan
    mask = torch.arange(7) < 3
    for one in documents:
        one[:, 2] = 5.0
    layer = Standardisation(4)
    assert not layer.is_fitted
    assert torch.equal(layer(documents[0]), documents[0])
    layer.fit([(documents[0], None), (documents[1], mask), (torch.zeros(3, 4), mask[:3] & False)])
    joined = torch.cat([documents[0], documents[1][:3]]).double()
    want = joined.std(0, correction=0).float()
    assert int(layer.num_frames) == 53
    torch.testing.assert_close(layer.std[[0, 1, 3]], want[[0, 1, 3]])
    assert layer.std[2] == 1  # it never changes
    x = layer(documents[0])
    assert (x[:, 2] == 0).all()
    torch.testing.assert_close(layer.undo(x), documents[0])
    masked = layer(documents[1], mask)
    assert (masked[3:] == 0).all()

"""Codes, gradients and moving averages of the residual quantiser."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vidseg.projects.rqvae.nearest import nearest
from vidseg.projects.rqvae.quantizer import ResidualVectorQuantizerEMA

QUANTIZER = "vidseg.projects.rqvae.quantizer"


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def make(entries: int = 20, width: int = 6, levels: int = 4, **settings: Any) -> Any:
    """A quantiser whose levels shrink, as trained ones do."""
    quantizer = ResidualVectorQuantizerEMA(
        entries, width, levels, **{"kmeans_init": False} | settings
    )
    scale = 0.5 ** torch.arange(levels).view(-1, 1, 1)
    quantizer.codebooks.mul_(scale)
    quantizer.cluster_sum.mul_(scale)
    return quantizer


def naive(codebooks: Tensor, z: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Codes, sums after each level and residuals before each, in float64."""
    residual, codes, sums, residuals = z.detach().double(), [], [], []
    for codebook in codebooks.double():
        residuals.append(residual)
        codes.append(torch.cdist(residual, codebook).argmin(1))
        residual = residual - codebook[codes[-1]]
        sums.append(z.detach().double() - residual)
    return torch.stack(codes, 1), torch.stack(sums), residuals


@pytest.mark.parametrize(("entries", "width"), [(20, 6), (512, 64), (1, 3), (2, 1)])
def test_codes_are_the_nearest_entries_of_what_is_left_over(entries: int, width: int) -> None:
    quantizer = make(entries, width).eval()
    z = torch.randn(150, width)
    z_q, _, codes = quantizer(z)
    expected, sums, _ = naive(quantizer.codebooks, z)
    assert torch.equal(codes, expected)
    torch.testing.assert_close(z_q.double(), sums[-1], atol=1e-5, rtol=1e-5)


def test_any_leading_shape() -> None:
    quantizer = make().eval()
    z = torch.randn(2, 3, 5, 6)
    z_q, _, codes = quantizer(z)
    assert z_q.shape == z.shape
    assert codes.shape == (2, 3, 5, 4)
    assert torch.equal(codes[1, 2, 3], quantizer.encode(z[1, 2, 3]))
    assert torch.equal(z_q[1, 2, 3], quantizer.decode(codes[1, 2, 3]))


@pytest.mark.parametrize("levels", [1, 3, 8])
@pytest.mark.parametrize("training", [True, False])
def test_gradient_is_the_identity_for_any_number_of_levels(levels: int, training: bool) -> None:
    quantizer = make(levels=levels, commitment_cost=0).train(training)
    z = torch.randn(7, 6, requires_grad=True)
    z_q, loss, _ = quantizer(z)
    weights = torch.randn_like(z)
    (grad,) = torch.autograd.grad((z_q * weights).sum() + loss, z)
    assert torch.equal(grad, weights)


def test_rotation_turns_and_scales_each_vector_onto_its_quantised_one() -> None:
    quantizer = make(gradient="rotation").double().eval()
    z = torch.randn(1, 6, dtype=torch.float64, requires_grad=True)
    jacobian = torch.autograd.functional.jacobian(lambda x: quantizer(x)[0], z)[0, :, 0]
    z_q, _, codes = quantizer(z)
    assert torch.equal(z_q, quantizer.decode(codes))
    torch.testing.assert_close(jacobian @ z[0], z_q[0])
    square = (z_q.norm() / z.norm()).square()
    torch.testing.assert_close(jacobian.T @ jacobian, square * torch.eye(6, dtype=torch.float64))
    assert torch.linalg.det(jacobian) > 0


@pytest.mark.parametrize("z", [0.0, -1.0, 1.0])
def test_rotation_has_finite_gradients_without_a_direction(z: float) -> None:
    quantizer = make(1, 6, 1, gradient="rotation").eval()
    quantizer.codebooks.fill_(1)
    x = torch.full((1, 6), z, requires_grad=True)
    quantizer(x)[0].sum().backward()
    assert x.grad.isfinite().all()
    quantizer.codebooks.zero_()
    quantizer(x)[0].sum().backward()
    assert x.grad.isfinite().all()


def test_commitment_is_the_mean_over_levels_vectors_and_dimensions() -> None:
    quantizer = make(commitment_cost=0.7).eval()
    z = torch.randn(9, 6, requires_grad=True)
    _, sums, _ = naive(quantizer.codebooks, z)
    expected = 0.7 * torch.stack([(z - total.float()).square().mean() for total in sums]).mean()
    loss = quantizer(z)[1]
    torch.testing.assert_close(loss, expected)
    (grad,) = torch.autograd.grad(loss, z)
    torch.testing.assert_close(grad, torch.autograd.grad(expected, z)[0])


def test_moving_averages_follow_the_vectors_after_their_codes_are_taken() -> None:
    quantizer = make(decay=0.8, eps=1e-3, revive_every=0).train()
    size, total = quantizer.cluster_size.double(), quantizer.cluster_sum.double()
    for _ in range(3):
        z = torch.randn(50, 6)
        expected, _, residuals = naive(quantizer.codebooks, z)
        assert torch.equal(quantizer(z)[2], expected)
        chosen = torch.nn.functional.one_hot(expected, 20).double()  # (M, Q, K)
        size = 0.8 * size + 0.2 * chosen.sum(0)
        sums = torch.einsum("mqk,qmv->qkv", chosen, torch.stack(residuals))
        total = 0.8 * total + 0.2 * sums
        mass = size.sum(1, keepdim=True)
        smoothed = (size + 1e-3) / (mass + 20 * 1e-3) * mass
        for name, value in (
            ("cluster_size", size),
            ("cluster_sum", total),
            ("codebooks", total / smoothed.unsqueeze(2)),
        ):
            found = getattr(quantizer, name).double()
            torch.testing.assert_close(found, value, atol=1e-5, rtol=1e-5, msg=name)
    torch.testing.assert_close(quantizer.usage.sum(1), torch.ones(4))


def test_nothing_moves_in_evaluation() -> None:
    quantizer = make().eval()
    before = {name: value.clone() for name, value in quantizer.state_dict().items()}
    quantizer(torch.randn(30, 6))
    assert all(torch.equal(before[name], value) for name, value in quantizer.state_dict().items())


def test_masked_vectors_take_no_part() -> None:
    alone, among = make(revive_every=1), make(revive_every=1)
    among.load_state_dict(alone.state_dict())
    z, mask = torch.randn(3, 8, 6), torch.rand(3, 8) < 0.5
    spoilt = z.masked_fill(~mask.unsqueeze(2), torch.nan).requires_grad_()
    torch.manual_seed(1)
    expected = alone(z[mask])
    torch.manual_seed(1)
    z_q, loss, codes = among(spoilt, mask)
    assert torch.equal(z_q[mask], expected[0])
    assert torch.equal(loss, expected[1])
    assert torch.equal(codes[mask], expected[2])
    assert (z_q[~mask] == 0).all()
    assert (codes[~mask] == -1).all()
    for name, value in alone.state_dict().items():
        assert torch.equal(value, among.state_dict()[name]), name
    (z_q.sum() + loss).backward()
    assert (spoilt.grad[~mask] == 0).all()
    assert spoilt.grad.isfinite().all()


@pytest.mark.parametrize("gradient", ["straight_through", "rotation"])
def test_a_batch_without_a_valid_vector(gradient: str) -> None:
    quantizer = make(gradient=gradient, revive_every=1).train()
    before = quantizer.codebooks.clone()
    z = torch.randn(2, 4, 6, requires_grad=True)
    with torch.autograd.detect_anomaly():
        z_q, loss, codes = quantizer(z, torch.zeros(2, 4, dtype=torch.bool))
        (z_q.sum() + loss).backward()
    assert loss == 0
    assert (z_q == 0).all()
    assert (codes == -1).all()
    assert (z.grad == 0).all()
    assert torch.equal(quantizer.codebooks, before)


def test_values_that_are_no_numbers_do_not_reach_the_codebooks() -> None:
    quantizer = make(revive_every=1).train()
    z = torch.randn(30, 6)
    z[3, 2] = torch.nan
    quantizer(z)
    assert all(value.isfinite().all() for value in quantizer.buffers())
    quantizer(torch.randn(30, 6))
    assert all(value.isfinite().all() for value in quantizer.buffers())


@pytest.mark.parametrize("onednn", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("entries", "width"), [(512, 64), (512, 200), (37, 5), (64, 1024)])
def test_codes_of_a_vector_do_not_depend_on_its_batch(
    entries: int, width: int, dtype: torch.dtype, onednn: bool
) -> None:
    quantizer = make(entries, width, 3).to(dtype).eval()
    z = torch.randn(700, width, dtype=dtype)
    # Halfway between two entries the last bit decides.
    halves = quantizer.codebooks[0, torch.randint(entries, (2, 300))].mean(0)
    z[:300] = halves
    with torch.backends.mkldnn.flags(enabled=onednn):
        everything = quantizer.encode(z)
        for start, size in ((0, 1), (5, 2), (17, 31), (250, 128), (101, 129), (60, 400), (299, 42)):
            assert torch.equal(quantizer.encode(z[start : start + size]), everything[start:][:size])
        order = torch.randperm(700)
        assert torch.equal(quantizer.encode(z[order]), everything[order])
        mask = torch.rand(700) < 0.3
        assert torch.equal(quantizer.encode(z, mask)[mask], everything[mask])


@pytest.mark.parametrize("levels", [1, 3, 4])
def test_decoded_codes_equal_the_quantised_vectors_bit_for_bit(levels: int) -> None:
    quantizer = make(50, 64).eval()
    z, mask = torch.randn(3, 42, 64), torch.rand(3, 42) < 0.8
    z_q, _, codes = quantizer(z.requires_grad_(), mask, levels)
    assert torch.equal(codes, quantizer.encode(z, mask, levels))
    assert torch.equal(quantizer.decode(codes), z_q)
    assert torch.equal(quantizer.decode(codes[..., :levels]), z_q)
    assert (codes[..., levels:] == -1).all()


def test_codes_may_be_integers_of_any_size() -> None:
    quantizer = make().eval()
    codes = torch.tensor([[3, 19, -1, -1], [0, 7, 4, 1]])
    for dtype in (torch.int8, torch.int16, torch.int32):
        assert torch.equal(quantizer.decode(codes.to(dtype)), quantizer.decode(codes))


def test_levels_are_nested() -> None:
    quantizer = make(levels=8).eval()
    z = torch.randn(40, 6)
    assert torch.equal(quantizer.encode(z, num_quantizers=4)[:, :4], quantizer.encode(z)[:, :4])


def test_impossible_requests_say_what_is_possible() -> None:
    quantizer = make()
    for levels in (0, 5):
        with pytest.raises(ValueError, match=f"^{levels} levels.*4 codebooks"):
            quantizer.encode(torch.randn(2, 6), num_quantizers=levels)
    with pytest.raises(ValueError, match="code 20; a codebook has 20"):
        quantizer.decode(torch.tensor([[3, 20]]))
    with pytest.raises(ValueError, match="codes of 5 levels; there are 4"):
        quantizer.decode(torch.zeros(2, 5, dtype=torch.int64))
    for call in (quantizer, quantizer.encode, quantizer.initialize):
        with pytest.raises(ValueError, match=r"vectors \(2, 5\).*6 wide"):
            call(torch.randn(2, 5))
    for mask in (torch.ones(3, dtype=torch.bool), torch.ones(2)):
        with pytest.raises(ValueError, match=r"mask of vectors \(2, 6\) is bool \(2,\)"):
            quantizer(torch.randn(2, 6), mask)
    with pytest.raises(ValueError, match=r"'rotate'.*rotation"):
        make(gradient="rotate")
    with pytest.raises(ValueError, match=r"1\.0.*\[0, 1\)"):
        make(decay=1.0)
    with pytest.raises(ValueError, match="dropout is 2"):
        make(dropout=2)
    with pytest.raises(ValueError, match="0 entries"):
        make(entries=0)


def test_dropout_uses_a_random_number_of_levels() -> None:
    quantizer = make(dropout=0.5).train()
    z = torch.randn(10, 6)
    numbers = []
    for _ in range(60):
        size = quantizer.cluster_size.clone()
        codes = quantizer(z)[2]
        used = (codes >= 0).all(0)
        assert torch.equal(used, (codes >= 0).any(0))
        moved = (quantizer.cluster_size != size).any(1)
        assert torch.equal(moved, used)
        numbers.append(int(used.sum()))
    assert set(numbers) == {1, 2, 3, 4}
    assert numbers.count(4) > 25
    assert (quantizer(z, num_quantizers=3)[2] >= 0).all(0).tolist() == [True] * 3 + [False]
    assert (quantizer.eval()(z)[2] >= 0).all()


def test_a_dead_code_revives_with_the_mean_usage_and_lives_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    quantizer = make(8, 6, 2, revive_every=2, decay=0.5).train()
    quantizer.codebooks[:, 0] = quantizer.cluster_sum[:, 0] = 1000.0
    quantizer.cluster_size[:, 0] = 1e-3
    quantizer.cluster_sum[:, 0] *= 1e-3
    z = torch.randn(64, 6)
    with caplog.at_level(logging.INFO, QUANTIZER):
        quantizer(z)
        assert (quantizer.codebooks[:, 0] > 100).all()
        _, _, codes = quantizer(z)
    assert quantizer.num_revived >= 2
    assert "revived dead codes, by level: 1" in caplog.text
    assert (quantizer.codebooks[0, 0] == z).all(1).any()
    mean = quantizer.cluster_size[0, 1:].sum() / 8
    torch.testing.assert_close(quantizer.cluster_size[0, 0], mean, rtol=1e-3, atol=0)
    fresh = quantizer.codebooks[:, 0].clone()
    torch.testing.assert_close(
        quantizer.cluster_sum[:, 0], fresh * quantizer.cluster_size[:, :1], rtol=1e-3, atol=1e-6
    )
    quantizer(z)
    assert ((quantizer.codebooks[:, 0] - fresh).norm(dim=1) < 3).all()
    assert (quantizer.cluster_size[:, 0] > 0.1 * quantizer.cluster_size.mean(1)).all()
    assert (codes[:, 0] != 0).all()


def test_more_dead_codes_than_vectors_revive_with_noise() -> None:
    quantizer = make(40, 6, 1, revive_every=1).train()
    quantizer.codebooks[:, 1:] = 1000.0
    quantizer.cluster_size[:, 1:] = 1e-6
    quantizer(torch.randn(5, 6))
    assert quantizer.num_revived == 39
    assert len(quantizer.codebooks[0].unique(dim=0)) == 40
    assert quantizer.codebooks.abs().max() < 10


def test_revival_keeps_codes_in_use() -> None:
    shares = {}
    for every in (0, 10):
        torch.manual_seed(0)
        quantizer = ResidualVectorQuantizerEMA(
            64, 8, 4, decay=0.95, kmeans_init=False, revive_every=every
        ).train()
        for _ in range(300):
            quantizer(3 + torch.randn(256, 8))
        codes = quantizer.eval().encode(3 + torch.randn(4000, 8))
        shares[every] = min(len(column.unique()) / 64 for column in codes.unbind(1))
    assert shares[10] > 0.95
    assert shares[0] < 0.8


@pytest.mark.parametrize(("vectors", "warned"), [(20, True), (30, False)])
def test_a_decay_that_sees_few_vectors_is_warned_of_once(
    vectors: int, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    quantizer = make(100, decay=0.9).train()
    with caplog.at_level(logging.WARNING, QUANTIZER):
        quantizer(torch.randn(vectors, 6))
        quantizer(torch.randn(vectors, 6))
    assert len(caplog.records) == warned
    assert not warned or "2 vectors per code (20 a step, 100 codes, decay 0.9)" in caplog.text


def test_a_loaded_quantiser_goes_on_where_it_was_saved(tmp_path: Path) -> None:
    quantizer = ResidualVectorQuantizerEMA(8, 6, 2, revive_every=3)
    quantizer.initialize(torch.randn(100, 6))
    for _ in range(2):
        quantizer(torch.randn(40, 6))
    torch.save(quantizer.state_dict(), tmp_path / "q.pth")
    loaded = ResidualVectorQuantizerEMA(8, 6, 2, revive_every=3)
    loaded.load_state_dict(torch.load(tmp_path / "q.pth", weights_only=True))
    assert loaded.initialized
    z = torch.randn(4, 6)
    for one in (quantizer, loaded):
        torch.manual_seed(5)
        one(z)
    for name, value in quantizer.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name


def test_reduced_precision_and_double() -> None:
    quantizer = make().train()
    z = torch.randn(20, 6)
    expected = quantizer.eval().encode(z.bfloat16().float())
    with torch.autocast("cpu", torch.bfloat16):
        z_q, loss, codes = quantizer.train()(z.bfloat16().requires_grad_())
    assert z_q.dtype == loss.dtype == quantizer.codebooks.dtype == torch.float32
    assert torch.equal(codes, expected)
    double = make().double().train()
    assert double(z)[0].dtype == torch.float64
    assert double.cluster_sum.dtype == torch.float64


def test_no_vectors_have_no_nearest_entries() -> None:
    assert nearest(torch.zeros(0, 8), torch.randn(64, 8)).shape == (0,)

import numpy as np
import pytest

from vidseg import mask_runs, rle
from vidseg.mask_runs import FRAME_BITS, MaskError, read_areas, read_runs


def to_text(numbers: list[int]) -> str:
    """Writes the lengths of runs as an RLE text, whatever they are."""
    text = ""
    for place, number in enumerate(numbers):
        value = number - numbers[place - 2] if place > 2 else number
        is_done = False
        while not is_done:
            digit, value = value & 31, value >> 5
            is_done = value == (-1 if digit & 16 else 0)
            text += chr(48 + digit + (0 if is_done else 32))
    return text


def read(texts: list, height: int, width: int, frames: list[int]) -> mask_runs.MaskRuns:
    sides = (np.full(len(texts), side, dtype=np.int64) for side in (height, width))
    return read_runs(texts, *sides, np.array(frames, dtype=np.int64))


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 1.0])
@pytest.mark.parametrize("as_text", [True, False])
def test_runs_and_areas_are_those_of_the_pixels(
    share: float, as_text: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mask_runs, "NEAR_MASKS", 8)
    masks = np.random.default_rng(0).random((20, 300, 200)) < share
    masks[::3, :, 30:60] = True
    masks[1::3, -1, -1], masks[2::3, 0, 0] = True, True
    texts = [(rle.to_text(one) if as_text else one)["counts"] for one in rle.encode(masks)]
    frames = [*range(9), *range(11)]
    runs = read(texts, 300, 200, frames)
    np.testing.assert_array_equal(runs.areas, masks.sum(axis=(1, 2)))
    np.testing.assert_array_equal(read_areas(texts, np.full(20, 300), np.full(20, 200)), runs.areas)
    assert (np.diff(runs.starts) % 2 == 0).all()
    assert runs.starts[-1] == len(runs.bounds)
    for index, mask in enumerate(masks):
        bounds = runs.bounds[slice(*runs.starts[index : index + 2])] - (frames[index] << FRAME_BITS)
        drawn = np.zeros(mask.size + 1, dtype=np.int64)
        np.add.at(drawn, bounds[::2], 1)
        np.add.at(drawn, bounds[1::2], -1)
        np.testing.assert_array_equal(np.cumsum(drawn)[:-1], mask.T.ravel())


def test_long_runs_and_runs_without_pixels() -> None:
    numbers = [0, 20_000 * 30_000, 0, 0, 5, 1, 0]
    size = (6, 100_000_001)
    runs = read([to_text(numbers), to_text([sum(numbers)])], *size, [0, 1])
    assert runs.areas.tolist() == [20_000 * 30_000 + 1, 0]
    assert runs.bounds[-1] - (1 << FRAME_BITS) == sum(numbers)


def test_nothing_to_read() -> None:
    assert read([], 3, 4, []).starts.tolist() == [0]
    assert read_areas([], *np.zeros((2, 0), dtype=np.int64)).shape == (0,)


DAMAGED = {
    "inside a number": "0" * 3 + "o",
    "inside": "",
    "cover 47 pixels, its size is \\[6, 8\\]": to_text([40, 7]),
    "a run has -5 pixels": to_text([50, 3, -5]),
    "too long": "o" * 7 + "0",
    "a character that no RLE has": " 0",
}


@pytest.mark.parametrize("said", DAMAGED)
def test_damage_is_named_by_its_place(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mask_runs, "NEAR_MASKS", 4)
    texts = [to_text([48])] * 6 + [DAMAGED[said], to_text([48])]
    with pytest.raises(MaskError, match=f"an RLE is damaged: .*{said}") as error:
        read(texts, 6, 8, [0] * 8)
    assert error.value.index == 6
    with pytest.raises(MaskError, match=said) as error:
        read_areas(texts, np.full(8, 6), np.full(8, 8))
    assert error.value.index == 6

from __future__ import annotations

import math
from typing import Any

import pytest

from vidseg.config.values import NULLABLE_KEYS, coerce
from vidseg.errors import ConfigError


@pytest.mark.parametrize(
    ("value", "default", "expected"),
    [
        ("12", 1, 12),
        ("1e5", 1, 100_000),
        (1e3, 1, 1000),
        (1, 0.5, 1.0),
        ("1e-4", 0.5, 1e-4),
        ("inf", 0.5, math.inf),
        (-3, 1, -3),
        ("True", False, True),
        ("false", True, False),
        (True, False, True),
        ("abc", "", "abc"),
        ("2019", "", "2019"),
        ("'quoted'", "", "quoted"),
        ("(7000,)", (30000,), (7000,)),
        ([7000, 9e3], (30000,), (7000, 9000)),
        ("['1e-4', 2]", [1.0], [1e-4, 2]),
        (["a"], (), ("a",)),
        ("('a', 'b')", (), ("a", "b")),
        ("(a, b,)", (), ("a", "b")),
        ("[a]", ("x",), ("a",)),
        ([384, 600], [0.9, 0.9], [384, 600]),
        ([0.5, 0.5], (384, 600), (0.5, 0.5)),
        ([[1, (2, 3)]], [], [[1, [2, 3]]]),
        ([], [1.0], []),
    ],
)
def test_what_loses_nothing_is_converted(value: Any, default: Any, expected: Any) -> None:
    result = coerce("A.B", value, default, "command line")
    assert result == expected
    assert type(result) is type(expected)


def test_pixels_of_a_crop_stay_ints() -> None:
    assert [type(v) for v in coerce("A", (384, 600), [0.9, 0.9], "x")] == [int, int]


@pytest.mark.parametrize(
    ("value", "default", "kind"),
    [
        ("ten", 1, "int"),
        (1.5, 1, "int"),
        (True, 1, "int"),
        ("inf", 1, "int"),
        ("[1]", 1, "int"),
        ("fast", 0.1, "float"),
        (False, 0.1, "float"),
        (math.nan, 0.1, "float"),
        ("maybe", True, "bool"),
        (1, True, "bool"),
        (3, "", "str"),
        (["a"], "", "str"),
        ("x", (), "a list"),
        (5, (30000,), "a list"),
        (["a"], (30000,), "a list"),
        ([1], ["res2"], "a list"),
        ([1], [True], "a list"),
        (None, 1, "int"),
        (None, "", "str"),
        ("None", "", "str"),
        ("None", (), "a list"),
    ],
)
def test_what_does_not_fit_is_refused(value: Any, default: Any, kind: str) -> None:
    with pytest.raises(ConfigError) as error:
        coerce("SOLVER.KEY", value, default, "a.yaml:3")
    shown = None if value == "None" else value
    assert str(error.value).startswith(f"SOLVER.KEY wants {kind}, got {shown!r} (a.yaml:3)")


@pytest.mark.parametrize("key", sorted(NULLABLE_KEYS))
def test_published_none_is_kept_and_typed(key: str) -> None:
    good, bad = ("[2, 5]", "3") if NULLABLE_KEYS[key] is list else ("3", "x")
    for default in (None, coerce(key, good, None, "x")):
        assert coerce(key, None, default, "x") is None
        assert coerce(key, "None", default, "x") is None
        assert type(coerce(key, good, default, "x")) is NULLABLE_KEYS[key]
        with pytest.raises(ConfigError, match=key):
            coerce(key, bad, default, "x")


def test_a_scalar_for_a_list_is_answered_with_the_way_to_write_it() -> None:
    with pytest.raises(ConfigError, match=r'write "\[5\]"'):
        coerce("SOLVER.STEPS", "5", (1,), "command line")

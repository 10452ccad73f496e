from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from vidseg.errors import ConfigError, DataError, UserError, nearest, run_command


def _raising(error: BaseException) -> Callable[[list[str]], int]:
    def main(_: list[str]) -> int:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("no such thing"), 2, "error: no such thing\n"),
        (ConfigError("A wants int"), 2, "config error: A wants int\n"),
        (DataError("x.json is empty"), 1, "error: x.json is empty\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_errors_become_one_line_and_a_code(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        run_command(_raising(error))
    assert stop.value.code == code
    assert capsys.readouterr().err == line


def test_bugs_keep_their_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_command(_raising(ZeroDivisionError()))


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (1, 1)])
def test_return_value_is_the_exit_code(
    returned: int | None, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["tool", "--flag"])
    seen: list[str] = []

    def main(argv: list[str]) -> int | None:
        seen.extend(argv)
        return returned

    with pytest.raises(SystemExit) as stop:
        run_command(main)
    assert (stop.value.code, seen) == (code, ["--flag"])


def test_nearest_ignores_case_and_is_empty_for_strangers() -> None:
    assert nearest("dice_weigth", ["CLASS_WEIGHT", "DICE_WEIGHT", "X"])[0] == "DICE_WEIGHT"
    assert nearest("qqq", ["CLASS_WEIGHT"]) == []

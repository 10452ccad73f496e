"""Reading one config value: what a key of a given default accepts, and what it becomes.

The default of a key is its type. Typing is tolerant where nothing is lost (an integral float for
an int, an int for a float, a list for a tuple, ``"1e-4"`` for a number) and strict elsewhere.
"""

from __future__ import annotations

import ast
import math
from typing import Any

from vidseg.errors import ConfigError

__all__ = ["NULLABLE_KEYS", "coerce"]

# Published keys whose default is None, with the type they may take instead; nothing else may be
# None.
NULLABLE_KEYS: dict[str, type] = {
    "INPUT.STEPS": list,
    "INPUT.USING_FRAME_NUM": list,
    "MODEL.SWIN.QK_SCALE": float,
    "SOLVER.WEIGHT_DECAY_BIAS": float,
}

_BOOLEAN_WORDS = {
    **dict.fromkeys(("true", "yes", "on"), True),
    **dict.fromkeys(("false", "no", "off"), False),
}
_EMPTY = {list: [], float: 0.0}


def coerce(key: str, value: Any, default: Any, source: str) -> Any:
    """Gives ``value`` as the type of ``default``.

    Args:
        key: full dotted key, for the message and for the keys that may be None.
        value: from YAML, or a word of the command line.
        default: the value that the key has without configuration.
        source: where the value stands, e.g. ``"command line"`` or ``"a.yaml:14"``.

    Raises:
        ConfigError: if nothing sensible can be made of it.
    """
    if value is None or value == "None":
        if default is None or key in NULLABLE_KEYS:
            return None
        raise ConfigError(f"{key} wants {_kind(default)}, got None ({source})")
    if default is None:
        if key not in NULLABLE_KEYS:
            return _literal(value)
        default = _EMPTY[NULLABLE_KEYS[key]]
    converted, fits = _convert(value, default)
    if fits:
        return converted
    hint = ""
    if isinstance(default, (list, tuple)) and isinstance(value, (str, int, float)):
        hint = f'; write "[{_literal(value)!r}]"'
    raise ConfigError(f"{key} wants {_kind(default)}, got {value!r} ({source}){hint}")


def _convert(value: Any, default: Any) -> tuple[Any, bool]:
    """Gives the value in the type of the default, and whether it fits."""
    if isinstance(default, str):
        return _convert_text(value)
    if isinstance(default, bool):
        word = value.strip().lower() if isinstance(value, str) else None
        value = _BOOLEAN_WORDS.get(word, value) if word is not None else value
        return value, isinstance(value, bool)
    value = _literal(value)
    if isinstance(default, int):
        if isinstance(value, float) and math.isfinite(value) and value == int(value):
            value = int(value)
        return value, isinstance(value, int) and not isinstance(value, bool)
    if isinstance(default, float):
        fits = isinstance(value, (int, float)) and not isinstance(value, bool)
        return (float(value), not math.isnan(value)) if fits else (value, False)
    if isinstance(default, (list, tuple)):
        return _convert_sequence(value, default)
    return value, isinstance(value, type(default))


def _convert_text(value: Any) -> tuple[Any, bool]:
    if not isinstance(value, str):
        return value, False
    if value[:1] in ("'", '"'):  # quoted once more to protect it from the shell
        unquoted = _literal(value)
        return (unquoted, True) if isinstance(unquoted, str) else (value, True)
    return value, True


def _convert_sequence(value: Any, default: list[Any] | tuple[Any, ...]) -> tuple[Any, bool]:
    if not isinstance(value, (list, tuple)):
        return value, False
    items = [_literal(item) if _is_number(default) else _plain(item) for item in value]
    if default and not all(_same_sort(item, default[0]) for item in items):
        return value, False
    return type(default)(items), True


def _is_number(default: list[Any] | tuple[Any, ...]) -> bool:
    return bool(default) and isinstance(default[0], (int, float))


def _same_sort(item: Any, example: Any) -> bool:
    # Numbers of either type stay as they are: a crop size is a fraction or pixels.
    if isinstance(example, bool) or isinstance(item, bool):
        return isinstance(example, bool) and isinstance(item, bool)
    for sort in ((int, float), str, (list, tuple)):
        if isinstance(example, sort):
            return isinstance(item, sort)
    return True


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _literal(value: Any) -> Any:
    """Reads a word of the command line, or a quoted YAML value, as Python writes it."""
    if not isinstance(value, str):
        return value
    try:
        return ast.literal_eval(value.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        pass
    try:
        return float(value)  # "inf", which is no Python literal
    except ValueError:
        return _bare_words(value)


def _bare_words(value: str) -> Any:
    """Reads ``(a, b)`` with the quotes forgotten, as shells and hurried authors write it."""
    text = value.strip()
    if text[:1] + text[-1:] not in ("()", "[]") or any(c in text[1:-1] for c in "()[]\"'"):
        return value
    return [_literal(word.strip()) for word in text[1:-1].split(",") if word.strip()]


def _kind(default: Any) -> str:
    return "a list" if isinstance(default, (list, tuple)) else type(default).__name__

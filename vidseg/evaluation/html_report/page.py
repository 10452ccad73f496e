"""Puts page, style, script and payload into one html file that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

__all__ = ["render"]

# In the order in which the browser reads them: constants stand before their first use.
_STYLES = ("page.css", "player.css")
_SCRIPTS = (
    "elements.js",
    "tables.js",
    "overview.js",
    "curves.js",
    "masks.js",
    "timeline.js",
    "player.js",
    "playback.js",
    "page.js",
)


def render(payload: Mapping[str, Any]) -> str:
    """Gives the report as the text of one html file.

    The policy in its head admits this very script and style, pictures within the file, and no
    network, so that nothing in a payload can run or be sent anywhere.

    Args:
        payload: what the page shows; values that json can hold.

    Raises:
        ValueError: if a number of the payload is not finite; a value that is undefined is ``None``.
    """
    text = json.dumps(payload, allow_nan=False, separators=(",", ":"))
    style = "\n".join(map(_read, _STYLES))
    script = '"use strict";\n' + "\n".join(map(_read, _SCRIPTS))
    parts = {
        # Names of files may hold what no encoding can write.
        "title": html.escape(str(payload["title"]).encode(errors="replace").decode()),
        "style": style,
        "style_hash": _hash(style),
        "script": script,
        "script_hash": _hash(script),
        # No tag can begin within the payload: neither the end of its element nor a comment.
        "payload": text.replace("<", "\\u003c"),
    }
    # In one pass, for a payload may hold what looks like a place to fill.
    return re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], _read("page.html"))


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Gives the source expression of a Content-Security-Policy that admits the text inline."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

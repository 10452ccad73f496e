"""The page of an evaluation report is one file that runs its own script alone."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path

import pytest

from tests.evaluation.report_browser import payloads
from vidseg.evaluation.html_report.page import render

PACKAGE = Path(__file__).resolve().parents[2] / "vidseg" / "evaluation" / "html_report"


def blocks(page: str, tag: str) -> list[str]:
    return re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)


def hash_of(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@pytest.mark.parametrize("make", [payloads.ordinary, payloads.empty, payloads.crowded])
def test_payload_is_within(make) -> None:
    page = render(make())
    inside = re.search(r'<script type="application/json" id="payload">(.*?)</script>', page)
    assert inside is not None
    assert "<" not in inside[1]
    assert json.loads(inside[1]) == json.loads(json.dumps(make()))


def test_policy_admits_nothing_but_the_page() -> None:
    page = render(payloads.crowded())
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    directives = dict(part.strip().split(" ", 1) for part in policy[1].split(";"))
    (script,), (style,) = blocks(page, "script"), blocks(page, "style")
    assert directives == {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": f"'{hash_of(style)}'",
        "script-src": f"'{hash_of(script)}'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def test_names_stay_text() -> None:
    hostile = "</title><script>{{script}}</script>"
    page = render({**payloads.empty(), "title": hostile})
    assert "<title>&lt;/title&gt;&lt;script&gt;{{script}}&lt;/script&gt;</title>" in page
    assert page.count("<script") == render(payloads.empty()).count("<script")


def test_names_that_no_encoding_can_write() -> None:
    name = "caf\u00e9 \udcff"  # how Python reads a file name that is not UTF-8
    page = render({**payloads.empty(), "title": name, "notes": [name]})
    assert "<title>caf\u00e9 ?</title>".encode() in page.encode()


def test_numbers_that_are_not_finite_are_refused() -> None:
    figure = {"name": "AP", "value": float("nan"), "unit": "%", "help": ""}
    with pytest.raises(ValueError, match="not JSON compliant"):
        render({**payloads.empty(), "figures": [figure]})


def test_every_file_is_used_and_writes_text_alone() -> None:
    page = render(payloads.empty())
    sources = [*PACKAGE.glob("*.js"), *PACKAGE.glob("*.css")]
    assert len(sources) > 2
    for source in sources:
        text = source.read_text()
        assert text in page, f"{source.name} is not in the page"
        assert len(text.splitlines()) <= 400, f"{source.name} is to be split"
        # Ways by which data would become markup or code, or leave the page.
        ways = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function"
        assert not re.search(rf"{ways}|\bfetch\(|XMLHttp|WebSocket|@import|url\(", text)
    links = re.findall(r"https?://[^\s\"']+", page)
    assert set(links) == {"http://www.w3.org/2000/svg"}  # the name of a format

"""A browser without network, in which reports are opened."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="needs playwright, of the extra dev"
    )
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip(f"needs a browser on PATH: {', '.join(PROGRAMS)}")
    with sync_api.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def open_file(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens a file without network; whatever it complains of or asks for fails the test."""
    contexts, complaints = [], []

    def open_file(file: Path, width: int = 1280, section: str = "", **settings: Any) -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, offline=True, **settings
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(5000)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        address = file.as_uri()

        def admit(route: Any) -> None:
            wanted = route.request.url
            if wanted.split("#")[0] == address or wanted.startswith("data:"):
                return route.continue_()
            complaints.append(f"asks for {wanted}")
            return route.abort()

        page.route("**/*", admit)
        page.goto(f"{address}#{section}" if section else address)
        return page

    yield open_file
    for context in contexts:
        context.close()
    assert complaints == []

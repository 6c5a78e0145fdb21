"""Pictures of the pages, for people to look at: no test compares them.

``python -m tests.browser.shots OUTBOX FOLDER [PATH ...]`` takes each page, or those whose paths are
given, in light and dark, on a desk, a small screen and a phone.
"""

from __future__ import annotations

import os
import sys
from itertools import product
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.support.dashboard import PAGES, running

_SIZES = {1440: 900, 1024: 768, 390: 844}
_SCHEMES = ("light", "dark")
_SETTLED = 'body[data-awaited=""]'


def main(outbox: Path, folder: Path, *paths: str) -> None:
    """Take the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    program = os.environ.get("CHROMIUM", "/usr/bin/chromium")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with running(outbox) as board, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        for scheme, (width, height) in product(_SCHEMES, _SIZES.items()):
            viewport = {"width": width, "height": height}
            context = browser.new_context(color_scheme=scheme, viewport=viewport)
            page = context.new_page()
            page.goto(board.link)
            page.wait_for_url(f"http://127.0.0.1:{board.port}/")
            for path in paths or PAGES:
                page.goto(f"http://127.0.0.1:{board.port}{path}")
                page.wait_for_selector(_SETTLED)
                name = path.strip("/").partition("?")[0] or "overview"
                page.screenshot(path=folder / f"{name}-{width}-{scheme}.png")
            context.close()
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])

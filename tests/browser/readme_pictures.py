"""Makes README's two pictures of the dashboard from the demo's data.

Run it as ``python -m tests.browser.readme_pictures``. It needs the extras ``[collector]``,
``[dashboard]`` and ``[browser]``, and Chromium; see `conftest`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.support.dashboard import running

ROOT = Path(__file__).parents[2]
WIDTH, HEIGHT = 1280, 668
_DEMO = [sys.executable, "-m", "tracker.demo.command", "--keep"]


def main() -> None:
    """Run the demo, and take a picture of its overview in light and in dark."""
    with tempfile.TemporaryDirectory() as folder:
        told = subprocess.run(
            _DEMO, env={**os.environ, "TMPDIR": folder}, capture_output=True, text=True, check=True
        ).stdout
        outbox = re.search(r"outbox +(\S+\.sqlite3)", told)
        assert outbox is not None, told
        with running(Path(outbox[1])) as board, sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"),
                args=["--no-sandbox"] if os.geteuid() == 0 else [],
            )
            for scheme in ("light", "dark"):
                page = browser.new_context(
                    color_scheme=scheme, viewport={"width": WIDTH, "height": HEIGHT}
                ).new_page()
                page.goto(board.link)
                page.goto(f"http://127.0.0.1:{board.port}/?period=24h")
                page.wait_for_selector('body[data-awaited=""]')
                page.screenshot(path=ROOT / ".github" / f"dashboard-{scheme}.png")
            browser.close()


if __name__ == "__main__":
    main()

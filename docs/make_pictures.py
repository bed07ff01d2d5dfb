"""Make the pictures of the site and of the README: `python docs/make_pictures.py`.

The study of digits, as its script runs it, writes to its own MLflow server. Chromium takes a screenshot
of the table of trials, and the final summary becomes an SVG. This takes some minutes, and needs Debian's
`chromium`.
"""

import os
import sys
import tempfile
from dataclasses import replace
from html import escape
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"
sys.path[:0] = [str(ROOT), str(ROOT / "studies"), str(ROOT / "tests")]

from digits import task  # noqa: E402
from server import Server  # noqa: E402

from lightning_tricks import create_study, optimize  # noqa: E402
from lightning_tricks.verdict.reporting import report_of  # noqa: E402

TRIALS, REPEATS = 40, 3
CHROMIUM = "/usr/bin/chromium"
NO_BREAK = "\u00a0"
LINE, LETTER, MARGIN = 19, 7.85, 16
"""The height of a line, the width of a letter and the margin, in pixels."""


def main() -> None:
    """Run the study and make both pictures."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        server = Server(Path(folder))
        server.start()
        try:
            where = {"workers": "inline", "tracking_uri": server.uri}
            digits = replace(task(), repeats=REPEATS)
            study = create_study(digits, storage=None)
            summary = optimize(study, digits, n_trials=TRIALS, finalists=6, **where)
            (PICTURES / "summary.svg").write_text(drawn(summary.text(width=100)))
            (trials,) = [line for line in summary.look.splitlines() if "the trials" in line]
            photograph(trials.split()[-1], PICTURES / "mlflow_table.png")
            page = Path(folder) / "report.html"
            page.write_text(report_of(study, digits, summary.verdict).html(), encoding="utf-8")
            photograph_report(page.as_uri(), PICTURES / "report.png")
        finally:
            server.kill()
            os.chdir(ROOT)
    for path in sorted(PICTURES.iterdir()):
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB")


def drawn(text: str) -> str:
    """Return terminal output as an SVG."""
    lines = text.split("\n")
    width = round(max(map(len, lines)) * LETTER + 2 * MARGIN)
    height = len(lines) * LINE + 2 * MARGIN
    written = [
        f'<text x="{MARGIN}" y="{MARGIN + LINE * (number + 0.75):.1f}">{line}</text>'
        for number, line in enumerate(escape(text).replace(" ", NO_BREAK).split("\n"))
    ]
    style = "font: 13px 'DejaVu Sans Mono', Menlo, Consolas, monospace; fill: #24292f"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}">',
            f'<rect width="{width}" height="{height}" rx="8" fill="#f6f8fa" stroke="#d0d7de"/>',
            f'<g style="{style}">',
            *written,
            "</g>",
            "</svg>\n",
        ]
    )


def photograph(link: str, path: Path) -> None:
    """Take a screenshot of MLflow's table of trials."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 620})
        page.goto(link)
        page.wait_for_selector("text=· champion", timeout=120_000)
        page.wait_for_selector("text=first_to_last", timeout=60_000)
        for button in page.locator("button:has(svg)").all():
            around = button.bounding_box()
            if around and around["x"] > 1380 and around["y"] < 60:  # closes MLflow's assistant
                button.click()
                break
        page.wait_for_timeout(3000)  # the table resizes
        page.screenshot(path=path)
        browser.close()


def photograph_report(link: str, path: Path) -> None:
    """Photograph the first screen of a report."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 860, "height": 760})
        page.goto(link)
        page.screenshot(path=path)
        browser.close()


if __name__ == "__main__":
    main()

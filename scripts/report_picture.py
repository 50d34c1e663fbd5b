"""Make the picture of a report that the README shows: its first screen, as a PNG.

    python scripts/report_picture.py campaigns/incompressible/report.html docs/images/report.png

Needs a Chromium or Chrome on the PATH (Debian: apt-get install chromium fonts-dejavu); it runs without a window and
without the network. The colours of the PNG are reduced to 128, which keeps it far below 300 kB.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--hide-scrollbars",
    "--virtual-time-budget=5000",
)


def main() -> None:
    """Read the arguments, call the browser, shrink what it drew."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("report", type=Path, help="report.html of a campaign")
    parser.add_argument("picture", type=Path, help="PNG to write")
    parser.add_argument("--width", type=int, default=1200, help="of the window, in pixels; 500 at least")
    parser.add_argument("--height", type=int, default=905, help="of the window, in pixels")
    parser.add_argument("--dark", action="store_true", help="as for readers who prefer dark pages")
    given = parser.parse_args()
    if not given.report.is_file():
        sys.exit(f"{given.report} does not exist: run `atomsets screen` first")
    given.picture.parent.mkdir(parents=True, exist_ok=True)
    draw(given.report, given.picture, given.width, given.height, given.dark)
    with Image.open(given.picture) as image:
        image.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(given.picture, optimize=True)
    print(f"{given.picture}: {given.picture.stat().st_size / 1000:.0f} kB")


def draw(report: Path, picture: Path, width: int, height: int, dark: bool) -> None:
    """Let a browser draw the top of the report.

    Raises:
        SystemExit: there is no browser, or it drew nothing.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit(f"none of {', '.join(BROWSERS)} is installed: apt-get install chromium fonts-dejavu")
    picture.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [browser, *FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}"]
        if dark:
            command.append("--blink-settings=preferredColorScheme=0")
        command += [f"--screenshot={picture.resolve()}", report.resolve().as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if not picture.is_file():
        sys.exit(f"{browser} drew nothing:\n{done.stderr[-2000:]}")


if __name__ == "__main__":
    main()

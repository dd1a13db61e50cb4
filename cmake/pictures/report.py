"""docs/pictures/demo.png: the top of the demo's report, as Chromium shows it.

report.py REPORT.html [OUT.png]
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent.parent
WIDTH, HEIGHT = 1180, 1130


def main():
    report = Path(sys.argv[1]).resolve()
    out = Path(sys.argv[2] if len(sys.argv) > 2 else ROOT / "docs" / "pictures" / "demo.png")
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder, "shot.png")
        subprocess.run(
            [
                *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
                *(f"--user-data-dir={folder}/profile", f"--window-size={WIDTH},{HEIGHT}"),
                *(f"--screenshot={shot}", report.as_uri()),
            ],
            check=True,
            capture_output=True,
        )
        picture = Image.open(shot).convert("RGB")
        picture.quantize(64, dither=Image.Dither.NONE).save(out, optimize=True)
    print(f"{out}: {out.stat().st_size} bytes")


if __name__ == "__main__":
    main()

"""Make the pictures of docs/plots.md anew: run its blocks, and take the pictures they write.

Usage: python docs/examples/pictures.py
"""

import os
import re
import shutil
import tempfile
from pathlib import Path

import matplotlib

DOCS = Path(__file__).resolve().parents[1]


def main() -> None:
    """Run the Python blocks of the page in order, in a fresh folder."""
    matplotlib.use("Agg")
    page = (DOCS / "plots.md").read_text("utf-8")
    names: dict[str, object] = {"__name__": "__main__"}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for block in re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE):
            exec(block, names)
        for picture in sorted(Path(folder).glob("plot_*.png")):
            shutil.copy(picture, DOCS / "pictures" / picture.name)
            print(DOCS / "pictures" / picture.name)
        os.chdir(DOCS)


if __name__ == "__main__":
    main()

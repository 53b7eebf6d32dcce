"""Run the notebooks of the site and store what they show: texts, tables, small pictures.

Usage: python docs/examples/notebooks.py [NAME ...]

Outputs stand in the files, so that readers see them where nothing runs: on the site, on a phone, in
the repository. Pictures are stored with 16 colours; times and counts of executions are left out.
"""

import base64
import io
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
_SECONDS = 300
_COLOURS = 16


def executed(path: Path, folder: Path) -> Any:
    """Run a notebook from top to bottom in a folder; return it with all that it showed."""
    import nbclient
    import nbformat

    book = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(book, timeout=_SECONDS, resources=resources).execute()
    return book


def kept(cell: Any) -> list[dict[str, Any]]:
    """Return the outputs of a cell as they are stored: of each the one form that is shown."""
    found: list[dict[str, Any]] = []
    for output in cell.get("outputs", ()):
        if output["output_type"] == "stream":
            if output["name"] != "stdout":  # told by libraries, not by the notebook
                continue
            if found and found[-1]["output_type"] == "stream":
                found[-1]["text"] += output["text"]
            else:
                found.append({"name": "stdout", "output_type": "stream", "text": output["text"]})
            continue
        data = output["data"]
        if "image/png" in data:
            shown = {"image/png": _small(data["image/png"])}
        elif "text/html" in data:
            shown = {"text/html": data["text/html"]}
        else:
            shown = {"text/plain": data["text/plain"]}
        found.append({"data": shown, "metadata": {}, "output_type": "display_data"})
    return found


def _small(picture: str) -> str:
    from PIL import Image

    written = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
        # Margins of a notebook's pictures are transparent, which the dark scheme would show black.
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
        white.convert("RGB").quantize(_COLOURS).save(written, format="PNG", optimize=True)
    return base64.b64encode(written.getvalue()).decode()


def main(names: list[str]) -> None:
    """Store the outputs of the named notebooks, or of all."""
    import nbformat

    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        if names and path.stem not in names:
            continue
        with tempfile.TemporaryDirectory() as folder:
            book = executed(path, Path(folder))
        stored = nbformat.read(path, as_version=4)
        for cell, ran in zip(stored.cells, book.cells, strict=True):
            if cell.cell_type == "code":
                outputs = [nbformat.from_dict(output) for output in kept(ran)]
                cell.outputs, cell.execution_count = outputs, None
        nbformat.write(stored, path)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

"""Build what the front page of the site plays: `python docs/front_page.py`, before `mkdocs build`.

It writes docs/try/, which git does not keep: the network jsb_snu as it was trained and as a chip
holds it a year later, both compared with Keras, the player, and onnxruntime-web. Without that
folder the front page has a picture in its place.
"""

import argparse
import shutil
import sys
from pathlib import Path

import keras

import snukeras
from snukeras.export.errors import ExportError
from snukeras.export.folder import WEB, WEB_LICENCE, WEB_NETWORK, WEB_PLAYER, WEB_STYLE, beside
from snukeras.export.network import Network
from snukeras.export.samples import Samples
from snukeras.export.verify.web import compare_web
from snukeras.export.web.files import make
from snukeras.export.web.runtime import Runtime, find

FOLDER = Path(__file__).resolve().parent / "try"
NETWORK, YEAR_S, SEED = "jsb_snu", 31_536_000, 1


def build(folder: Path, runtime: Runtime) -> None:
    """Write the folder, whole or not at all.

    Raises:
        RuntimeError: A network of the page differs from Keras.
    """
    model = snukeras.zoo.load(NETWORK)
    chip = snukeras.pcm.Chip(model, compensation="global", seed=SEED)
    networks = {"trained": model, "a_year_later": chip.model(t=YEAR_S)}
    with beside(folder, overwrite=False) as part:
        for name, each in networks.items():
            files = _write(part / name, each, f"{NETWORK}, {name.replace('_', ' ')}")
        for name in (WEB_PLAYER, WEB_STYLE, WEB_LICENCE):
            (part / name).write_bytes(files[name])
        for name, data in runtime.items():
            (part / name).write_bytes(data)


def _write(folder: Path, model: keras.Model, title: str) -> dict[str, bytes]:
    """Write a network, compared with Keras; return all files of its page."""
    folder.mkdir()
    network = Network.read(model)
    chorales = Samples.chorales(network)
    assert chorales is not None
    files = make(network, chorales, title).files()
    for name in (WEB, WEB_NETWORK):
        (folder / name).write_bytes(files[name])
    result = compare_web(network, folder, chorales, title)
    if not result.ok:
        raise RuntimeError(f"{title} differs from Keras: {result.problem}.")
    print(f"{title}: {result.steps} steps, outputs within {result.max_difference:.1g} of Keras's")
    return files


def main(arguments: list[str]) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Build what the front page plays, into docs/try.")
    parser.add_argument("--web-runtime", metavar="PATH", help="as that of snukeras-export")
    options = parser.parse_args(arguments)
    try:
        runtime = find(options.web_runtime)
    except ExportError as error:
        print(f"{error.message} {error.hint}", file=sys.stderr)
        return 2
    shutil.rmtree(FOLDER, ignore_errors=True)
    build(FOLDER, runtime)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

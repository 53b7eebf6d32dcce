"""Write the folder of a model that a hub of models takes."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from snukeras import _files
from snukeras.zoo import presets
from snukeras.zoo.publishing import cards
from snukeras.zoo.tasks import TASKS, Task


def write(
    name: str,
    folder: Path | str,
    content: Path | str | None = None,
    overwrite: bool = False,
    tasks: Mapping[str, Task] = TASKS,
) -> list[str]:
    """Write a preset as a folder that a hub takes, with its card as README.md.

    Every file is checked by sha256 before it is copied. Links of the card to files of this
    repository become their words.

    Args:
        name: One of `snukeras.zoo.list()`.
        folder: Where to; it is made.
        content: Folder of presets. Default: the one that ships with the package.
        overwrite: Write into a folder that holds something.
        tasks: The tasks that presets may name.

    Returns:
        The names of the files.

    Raises:
        ValueError: No such preset, one without results, a damaged file, or a folder that holds
            something.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())) and not overwrite:
        raise ValueError(f"{folder} exists and is not empty. Add --overwrite to write into it.")
    text = cards.card(name, content, tasks, hub=True)
    source = presets.content_folder(content)
    kept = [presets.checked(name, file, content) for file in presets.PINNED]
    kept += [
        path
        for path in (source / name / presets.PRESET, source / name / presets.RECIPE)
        if path.is_file()
    ]
    folder.mkdir(parents=True, exist_ok=True)
    for path in kept:
        with _files.replacing(folder / path.name) as temporary:
            shutil.copyfile(path, temporary)
    results = source / presets.RESULTS / f"{name}.json"
    with _files.replacing(folder / "results.json") as temporary:
        shutil.copyfile(results, temporary)
    _files.write_text(folder / cards.CARD, text)
    return sorted(path.name for path in folder.iterdir() if path.is_file())

"""WikiText-2, word level: good and featured articles of Wikipedia (Merity et al., 2016)."""

import os
from pathlib import Path

import numpy as np

from snukeras.datasets import _words
from snukeras.datasets._fetch import VARIABLE, Source, fetch

END = _words.END

_FOLDER = (
    "https://raw.githubusercontent.com/pytorch/examples/"
    "77f55b912142e11fcfdf5b530231fb9c52f181e8/word_language_model/data/wikitext-2/"
)
SOURCES = tuple(
    Source(name=f"wikitext2.{split}.txt", url=f"{_FOLDER}{split}.txt", size=size, sha256=sha256)
    for split, size, sha256 in (
        (
            "train",
            10797148,
            "9e9fa1ad55b1c2c95b08e37dd8e653f638fac2c6de904b79e813611eefbc985f",
        ),
        (
            "valid",
            1121681,
            "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8",
        ),
        (
            "test",
            1256449,
            "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0",
        ),
    )
)
# The three texts in one file, as uint16 numbers `train`, `valid`, `test` into `vocab`.
PACKED = Source(
    name="wikitext2.npz",
    url=_FOLDER,
    size=3510179,
    sha256="373f3e2ebf920b6dda094b8eb3188e4c84bd328e7d53d06e3bec26906b98c19f",
)


def load_data(path: str | os.PathLike[str] | None = None) -> tuple[_words.Splits, list[str]]:
    """Load the corpus as word numbers: 2,088,628, 217,646 and 245,569 tokens.

    The first call downloads 13 MB (see `snukeras.datasets` for the cache, SNUKERAS_DATA and work
    without network). The text is under CC BY-SA 3.0.

    Args:
        path: A folder that holds wikitext2.train.txt, wikitext2.valid.txt and wikitext2.test.txt,
            or all three packed in wikitext2.npz; or that file. Default: see above.

    Returns:
        `((train, valid, test), vocabulary)`: int32 arrays `(tokens,)` and the 33,278 words, the
        most frequent of the training text first (equal ones by name). Each line ends with the
        token `<eos>`.

    Raises:
        FileNotFoundError, ValueError, ConnectionError: A file is missing, is not the expected
            one, or cannot be downloaded; the message says what to do.
    """
    given = os.environ.get(VARIABLE) if path is None else path
    if given:
        place = Path(given).expanduser()
        if place.is_file() or (place / PACKED.name).is_file():
            with np.load(fetch(PACKED, path), allow_pickle=False) as arrays:
                words = arrays["vocab"].tolist()
                return _words.number(
                    [[words[n] for n in arrays[split]] for split in ("train", "valid", "test")]
                )
        if path is not None and not place.is_dir():
            raise FileNotFoundError(
                f"Argument `path` must be {PACKED.name}, or a folder that holds it or "
                f"{', '.join(source.name for source in SOURCES)}. Received: {path}"
            )
    return _words.number([_words.split(fetch(s, path).read_text("utf-8")) for s in SOURCES])

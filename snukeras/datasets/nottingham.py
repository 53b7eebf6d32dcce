"""Nottingham: 1,037 British and American folk tunes with chords as piano rolls."""

import os

from snukeras.datasets import piano_roll
from snukeras.datasets._fetch import fetch

SOURCE = piano_roll.source(
    "Nottingham.mat", 371688, "d154f7ca2e90799dc1dc011d8fc048f2fc6ef3f7c69d974b9cf27a471634fbea"
)


def load_data(path: str | os.PathLike[str] | None = None) -> piano_roll.Splits:
    """Load the split of Boulanger-Lewandowski et al., ICML 2012: 694, 173 and 170 tunes.

    The first call downloads 372 kB (see `snukeras.datasets` for the cache, SNUKERAS_DATA and work
    without network). The files state no licence.

    Args:
        path: The file Nottingham.mat, or a folder that holds it. Default: see above.

    Returns:
        `(train, valid, test)`, each a list of uint8 arrays `(T, 88)`; key k is MIDI note k + 21.

    Raises:
        FileNotFoundError, ValueError, ConnectionError: The file is missing, is not the expected
            one, or cannot be downloaded; the message says what to do.
    """
    return piano_roll.read(fetch(SOURCE, path))

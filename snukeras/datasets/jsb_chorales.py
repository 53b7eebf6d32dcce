"""JSB chorales: 382 four-part chorales by Bach as piano rolls, a step a quarter note."""

import os

from snukeras.datasets import piano_roll
from snukeras.datasets._fetch import fetch

SOURCE = piano_roll.source(
    "JSB_Chorales.mat", 96095, "ac0e608527cc411c7e21ef7d38be47f0de7fb6b13b3ae168b8eccf1c2a9b18d4"
)


def load_data(path: str | os.PathLike[str] | None = None) -> piano_roll.Splits:
    """Load the split of Boulanger-Lewandowski et al., ICML 2012: 229, 76 and 77 chorales.

    All are transposed to C. The first call downloads 96 kB (see `snukeras.datasets` for the
    cache, SNUKERAS_DATA and work without network). The files state no licence; Bach's music is
    in the public domain.

    Args:
        path: The file JSB_Chorales.mat, or a folder that holds it. Default: see above.

    Returns:
        `(train, valid, test)`, each a list of uint8 arrays `(T, 88)`; key k is MIDI note k + 21.

    Raises:
        FileNotFoundError, ValueError, ConnectionError: The file is missing, is not the expected
            one, or cannot be downloaded; the message says what to do.
    """
    return piano_roll.read(fetch(SOURCE, path))

"""Spiking Speech Commands: 35 spoken words as spikes of an artificial cochlea."""

import os

from snukeras.datasets import _heidelberg
from snukeras.datasets._heidelberg import CHANNELS, Events, Splits

__all__ = ["CHANNELS", "CLASSES", "SOURCES", "Events", "Splits", "load_data"]

CLASSES = 35
SOURCES = tuple(_heidelberg.source(f"ssc_{split}.h5.gz") for split in ("train", "valid", "test"))


def load_data(path: str | os.PathLike[str] | None = None) -> Splits:
    """Load 75,466 recordings for training, 9,981 for validation and 20,382 for the test.

    Words of Google's Speech Commands v0.2 as spikes of 700 channels (Cramer, Stradmann, Schemmel
    and Zenke, IEEE TNNLS 2022, doi 10.1109/TNNLS.2020.3044364; CC BY 4.0). The splits are the
    files of the authors, who kept the splits of Speech Commands, which are by speaker.

    The first call downloads the files (see `snukeras.datasets` for the cache, SNUKERAS_DATA and
    work without network) and compares them with the md5sums.txt that is published beside them.
    Files in a folder of yours are compared with the md5sums.txt there, if there is one.

    Args:
        path: A folder that holds ssc_train.h5.gz, ssc_valid.h5.gz and ssc_test.h5.gz. Default:
            see above.

    Returns:
        `(train, valid, test)`, each `Events`; `Events.raster` puts them on a grid of steps.

    Raises:
        FileNotFoundError, ValueError, ConnectionError: A file is missing, is not the expected
            one, or cannot be downloaded; the message says what to do.
    """
    _heidelberg.check_path(path, SOURCES)
    return Splits(*(_heidelberg.read(source, path) for source in SOURCES))

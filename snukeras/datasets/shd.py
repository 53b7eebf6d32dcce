"""Spiking Heidelberg Digits: spoken digits as spikes of an artificial cochlea."""

import os
from collections.abc import Sequence

import numpy as np

from snukeras.datasets import _heidelberg
from snukeras.datasets._heidelberg import CHANNELS, Events, Splits

__all__ = ["CHANNELS", "CLASSES", "SOURCES", "Events", "Splits", "load_data"]

CLASSES = 20
SOURCES = (_heidelberg.source("shd_train.h5.gz"), _heidelberg.source("shd_test.h5.gz"))


def load_data(
    path: str | os.PathLike[str] | None = None, valid_speakers: Sequence[int] | None = None
) -> Splits:
    """Load 8,156 recordings for training and validation and 2,264 for the test.

    Digits in English and in German as spikes of 700 channels (Cramer, Stradmann, Schemmel and
    Zenke, IEEE TNNLS 2022, doi 10.1109/TNNLS.2020.3044364; CC BY 4.0). Two of the twelve speakers
    are in the test alone, so the validation is made of whole speakers as well: a figure on
    speakers that were heard in training would promise too much.

    The first call downloads the files (see `snukeras.datasets` for the cache, SNUKERAS_DATA and
    work without network) and compares them with the md5sums.txt that is published beside them.
    Files in a folder of yours are compared with the md5sums.txt there, if there is one.

    Args:
        path: A folder that holds shd_train.h5.gz and shd_test.h5.gz. Default: see above.
        valid_speakers: Numbers of the speakers of the training file whose recordings are the
            validation. Default: the last one.

    Returns:
        `(train, valid, test)`, each `Events`; `Events.raster` puts them on a grid of steps.

    Raises:
        FileNotFoundError, ValueError, ConnectionError: A file is missing, is not the expected
            one, or cannot be downloaded; or the validation would be empty, or all there is. The
            message says what to do.
    """
    _heidelberg.check_path(path, SOURCES)
    known, test = (_heidelberg.read(source, path) for source in SOURCES)
    speakers = sorted(set(known.speakers.tolist()))
    if speakers[0] < 0:
        raise ValueError(
            f"{SOURCES[0].name} must tell who speaks (extra/speaker): the validation is made of "
            f"whole speakers. Fetch it again from {SOURCES[0].url}."
        )
    wanted = speakers[-1:] if valid_speakers is None else list(valid_speakers)
    if not 0 < len(set(wanted)) < len(speakers) or not set(wanted) <= set(speakers):
        raise ValueError(
            "Argument `valid_speakers` must name some of the speakers of the training file, "
            f"{speakers}, and not all of them. Received: {wanted}"
        )
    chosen = np.isin(known.speakers, wanted)
    return Splits(known.where(~chosen), known.where(chosen), test)

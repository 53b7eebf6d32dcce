"""MNIST: 70,000 handwritten digits as grey images of 28 by 28 pixels."""

import hashlib
import os
import zipfile

import numpy as np
from numpy.typing import NDArray

from snukeras.datasets._fetch import Source, fetch

# The file of keras.datasets.mnist.
SOURCE = Source(
    name="mnist.npz",
    url="https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz",
    size=11490434,
    sha256="731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1",
)
# Of the arrays, in this order, as uint8: the same arrays are in use under several zips.
ARRAYS = {
    "x_train": (60_000, 28, 28),
    "y_train": (60_000,),
    "x_test": (10_000, 28, 28),
    "y_test": (10_000,),
}
ARRAYS_SHA256 = "06b0d1f124c4e5fa796686ade41a9b778edacc8622f2195a352ef479ad44fc16"

Split = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def load_data(path: str | os.PathLike[str] | None = None) -> tuple[Split, Split]:
    """Load MNIST: 60,000 images for training and 10,000 for the test.

    The first call downloads 11 MB, the file of `keras.datasets.mnist` (see `snukeras.datasets` for
    the cache, SNUKERAS_DATA and work without network). Yann LeCun and Corinna Cortes hold the
    copyright; CC BY-SA 3.0. Of a file that is there already the sha256 of the arrays is
    checked, whatever their packing.

    Args:
        path: The file mnist.npz, or a folder that holds it. Default: see above.

    Returns:
        `((x_train, y_train), (x_test, y_test))`: images uint8 `(n, 28, 28)`, digits uint8 `(n,)`.

    Raises:
        FileNotFoundError, ValueError, ConnectionError: The file is missing, does not hold these
            arrays, or cannot be downloaded; the message says what to do.
    """
    file = fetch(SOURCE, path, by_content=True)
    try:
        with np.load(file, allow_pickle=False) as arrays:
            found: dict[str, np.ndarray] = {name: arrays[name] for name in ARRAYS}
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise _refused(file, f"it cannot be read ({error})") from error
    digest = hashlib.sha256()
    for name, shape in ARRAYS.items():
        if found[name].shape != shape or found[name].dtype != np.uint8:
            raise _refused(file, f"{name} is {found[name].dtype} {found[name].shape}")
        digest.update(np.ascontiguousarray(found[name]).tobytes())
    if digest.hexdigest() != ARRAYS_SHA256:
        raise _refused(file, f"its arrays have sha256 {digest.hexdigest()}")
    return (found["x_train"], found["y_train"]), (found["x_test"], found["y_test"])


def _refused(file: os.PathLike[str], what: str) -> ValueError:
    return ValueError(
        f"{file} is not MNIST: {what}. It has to hold {', '.join(ARRAYS)} as uint8 with sha256 "
        f"{ARRAYS_SHA256}. Fetch it again from {SOURCE.url}."
    )

"""Data sets of the tasks: fetched on first use, checked by sha256, cached.

Every loader takes its files from the first of these places:

1. the argument `path` of `load_data` (a file, or a folder with the files),
2. the folder that the environment variable `SNUKERAS_DATA` names,
3. the cache, `~/.keras/datasets/snukeras` (`KERAS_HOME` replaces `~/.keras`),
4. the public address, from where the file goes to the cache.

A file whose size or sha256 differs is refused wherever it comes from; of `shd` and `ssc`, whose
authors publish md5 sums, one that differs from the md5sums.txt beside it. The package ships none
of these files.
"""

from snukeras.datasets import (
    jsb_chorales,
    mnist,
    nottingham,
    penn_treebank,
    piano_roll,
    shd,
    spoken_digits,
    ssc,
    streams,
    wikitext2,
)
from snukeras.datasets._fetch import at_hand

__all__ = [
    "at_hand",
    "jsb_chorales",
    "mnist",
    "nottingham",
    "penn_treebank",
    "piano_roll",
    "shd",
    "spoken_digits",
    "ssc",
    "streams",
    "wikitext2",
]

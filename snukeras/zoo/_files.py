"""Write the zoo's files whole or not at all, and identify them."""

import hashlib
import json
from pathlib import Path
from typing import Any

from snukeras._files import read_json, replacing, write_json, write_text

__all__ = ["read_json", "replacing", "sha256_of", "sha256_of_json", "write_json", "write_text"]


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_of_json(content: Any) -> str:
    """Return the sha256 of JSON content, whatever its order and layout."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

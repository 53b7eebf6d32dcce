"""Write the measured tables into documents: python -m experiments README.md docs/*.md"""

import argparse
import importlib
import re
import sys
from pathlib import Path

from snukeras import _files
from snukeras.zoo.publishing import cards

# Tables whose module is not an experiment of this package.
_ELSEWHERE = {"speed": "benchmark.tables", "search": "snukeras.zoo.training.search"}
# The models that the README names, for those who do not know yet which one they want.
_START = ("jsb_snu", "jsb_snu_pcm", "mnist_snu", "mnist_snu_conv", "speech_snu", "ptb_ssnu")
_TABLE = re.compile(r"(<!-- table (\w+)(?: (\w+))? -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def table(name: str, part: str | None = None) -> str:
    """Return a table as Markdown.

    Args:
        name: "models", "published", "search", "speed", or the name of an experiment's module.
        part: For an experiment with several tables, the argument of its function `table`; for
            "models" the name of a task, or None for all.
    """
    if (name, part) == ("models", "start"):
        return cards.table(names=_START)
    if name == "models":
        return cards.table(task=part)
    if name == "published":
        return cards.published_table()
    module = importlib.import_module(_ELSEWHERE.get(name, f"experiments.{name}"))
    return str(module.table() if part is None else module.table(part))


def filled(text: str) -> str:
    """Return a document with the tables between `<!-- table NAME -->` and `<!-- end -->` anew."""
    return _TABLE.sub(lambda found: found[1] + table(found[2], found[3]) + found[5], text)


def main(argv: list[str] | None = None) -> int:
    """Fill in the named documents; 0 if all went well."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments",
        description="Write the measured tables into documents.",
    )
    parser.add_argument("documents", type=Path, nargs="+", metavar="FILE", help="e.g. README.md")
    for document in parser.parse_args(argv).documents:
        _files.write_text(document, filled(document.read_text("utf-8")))
    return 0


if __name__ == "__main__":
    sys.exit(main())

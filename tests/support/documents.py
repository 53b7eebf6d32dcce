"""Run the Python and console blocks of a document as printed; test_documents.py does.

A page is run in a fresh folder by a process of its own, from top to bottom: its Python blocks share
their names, as they do for a reader who copies one after the other; a line of a console block that
starts with "$ " goes to bash, in the same folder. UserWarnings are errors in both. What else stands
in a console block is output: each such line has to come in this order in what the command printed,
and "..." stands for anything.

A comment `<!-- not run: REASON -->` above a block leaves it out. A comment `<!-- file: NAME -->`
says that the reader puts the block into a file of that name, which a later line uses.
"""

import json
import os
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

LANGUAGES = ("python", "console")
ROOT = Path(__file__).resolve().parents[2]
SECONDS = 1800

_BLOCK = re.compile(
    r"((?:^<!--(?:(?!-->).)*-->\n)*)^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE
)
_NOT_RUN = re.compile(r"<!-- not run:\s*(.*?)\s*-->", re.DOTALL)
_FILE = re.compile(r"<!-- file: (\S+) -->")


@dataclass(frozen=True)
class Block:
    """A block of a document that a reader may copy.

    Attributes:
        place: Page and line, for messages.
        language: "python" or "console".
        text: The lines between the fences.
        not_run: The reason why it cannot run, None where it can.
        file: Name of the file that a Python block is put into, None where it is run at once.
    """

    place: str
    language: str
    text: str
    not_run: str | None
    file: str | None


def blocks(page: Path) -> list[Block]:
    """Return the Python and console blocks of a page, from top to bottom."""
    text = page.read_text("utf-8")
    name = page.relative_to(ROOT) if page.is_relative_to(ROOT) else page
    found = []
    for match in _BLOCK.finditer(text):
        comments, language, content = match.groups()
        line = text.count("\n", 0, match.start(3)) + 1
        reason, file = _NOT_RUN.search(comments), _FILE.search(comments)
        if language in LANGUAGES:
            found.append(
                Block(
                    f"{name}:{line}",
                    language,
                    content,
                    reason[1] if reason else None,
                    file[1] if file else None,
                )
            )
    return found


def run(page: Path, folder: Path, *more: Path, languages: Sequence[str] = LANGUAGES) -> str:
    """Run the blocks of a page in a folder; return what they print, each followed by its time.

    Args:
        page: The page.
        folder: Where its blocks run.
        more: Pages that run after it in the same process, each with names of its own.
        languages: The kinds of blocks that run.

    Raises:
        AssertionError: A block failed, or did not print what the page says; with its output.
    """
    given = [
        asdict(block)
        for one in (page, *more)
        for block in blocks(one)
        if block.not_run is None and block.language in languages
    ]
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "PYTHONPATH": os.pathsep.join(
            filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]),
        ),
        "PYTHONWARNINGS": "error::UserWarning",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    environment.pop("COLUMNS", None)
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", str(Path(__file__).resolve())],
        input=json.dumps(given),
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{page.name} does not run as printed:\n{done.stdout[-6000:]}"
    return done.stdout


def commands(text: str) -> list[tuple[str, list[str]]]:
    """Split a console block into its commands, each with the lines of output that are shown.

    Raises:
        ValueError: The block does not begin with a command.
    """
    found: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif not found:
            raise ValueError(f"A console block has to begin with `$ `. Received: {line!r}")
        elif found[-1][0].endswith("\\") and not found[-1][1]:
            found[-1] = (f"{found[-1][0]}\n{line}", [])
        elif line.strip():
            found[-1][1].append(line)
    return found


def missing(shown: Sequence[str], printed: str) -> str | None:
    """Return the first shown line of output that does not come, in order; None where all do.

    White space counts once; within a line "..." stands for anything.
    """
    lines = iter(" ".join(line.split()) for line in printed.splitlines())
    for line in shown:
        if line.strip() == "...":
            continue
        parts = (re.escape(part) for part in " ".join(line.split()).split("..."))
        wanted = re.compile(".*".join(parts))
        if not any(wanted.fullmatch(candidate) for candidate in lines):
            return line
    return None


def _run_console(block: Block) -> None:
    for command, shown in commands(block.text):
        print(f"{block.place}: $ {command}", flush=True)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        print(done.stdout, flush=True)
        if done.returncode:
            raise SystemExit(f"{block.place}: exit code {done.returncode} from: {command}")
        line = missing(shown, done.stdout)
        if line is not None:
            raise SystemExit(
                f"{block.place}: the page shows, and the command did not print: {line}"
            )


def _main() -> None:
    warnings.simplefilter("error", UserWarning)
    # The folder of this file is no place to import from: a reader does not have it.
    sys.path[0] = ""
    sys.argv = [""]
    page = ""
    for block in (Block(**fields) for fields in json.load(sys.stdin)):
        if page != block.place.partition(":")[0]:
            page = block.place.partition(":")[0]
            names: dict[str, object] = {"__name__": "__main__"}
        start = time.perf_counter()
        if block.language == "console":
            _run_console(block)
        elif block.file is not None:
            Path(block.file).write_text(block.text, "utf-8")
        else:
            print(f"{block.place}: Python", flush=True)
            exec(compile(block.text, block.place, "exec"), names)
        print(f"{block.place}: took {time.perf_counter() - start:.1f} s", flush=True)


if __name__ == "__main__":
    _main()

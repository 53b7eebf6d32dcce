"""Output in a terminal: consoles, a quiet start of Keras, status and progress."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

# Piped output is not folded; no line of a table is longer.
PIPED_WIDTH = 200


def console() -> "Console":
    """Return the console of stdout: coloured on a terminal, plain lines where it is piped."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else PIPED_WIDTH
    return Console(highlight=False, width=width, markup=False)


def plain(value: object) -> str:
    """Return the text of a value with its control characters visible, save line breaks and tabs.

    A file of somebody else may hold escape sequences that would move the cursor or hide text.
    """
    return "".join(
        sign if sign.isprintable() or sign in "\n\t" else repr(sign)[1:-1] for sign in str(value)
    )


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Keep the notices of TensorFlow's C++ parts off stderr; the first ones have no switch."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if sys.stderr is not None:
        sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:  # the process has no stderr to keep clean
        yield
        return
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def start_keras() -> None:
    """Import Keras with its backend, without their notices."""
    with quiet_stderr():
        import keras

        keras.ops.zeros(1)  # the first operation makes the last of the notices


@contextmanager
def status(silent: bool = False) -> Iterator[Callable[[str], None]]:
    """Yield a function that says on stderr what is being done, where a person is watching.

    Args:
        silent: Say nothing, as where the command prints JSON.
    """
    if silent or sys.stderr is None or not sys.stderr.isatty():
        yield lambda text: None
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status("starting") as shown:
        yield lambda text: shown.update(Text(text))  # a file's name is no markup


@contextmanager
def bar(label: str, total: int, show: bool = True) -> Iterator[Callable[[], object]]:
    """Show a progress bar on stderr, where a person is watching; yield what advances it by one.

    Args:
        label: What is counted.
        total: How many there are.
        show: False shows nothing.
    """
    if not show or not total or sys.stderr is None or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(label, total=total)
        yield lambda: progress.advance(task)

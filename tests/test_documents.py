"""Every Python and console block of README, docs and cards runs as printed.

Each page in a fresh folder, its blocks in order, nothing added, UserWarnings as errors. Each starts
TensorFlow anew, so all of them are slow tests.

The cards of a task are alike but for the name of the model: one of them runs whole, of the others
the Python, in one process. That each preset exports is tested by tests/export/test_presets.py.
"""

from pathlib import Path

import documents
import pytest

ROOT = documents.ROOT
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
CARDS = sorted((ROOT / "zoo").glob("*/README.md"))
WHOLE = [
    ROOT / "zoo" / name / "README.md"
    for name in ("jsb_snu", "mnist_snu", "nottingham_ssnu", "ptb_ssnu", "speech_snu")
]


def with_blocks(pages):
    """Return those of the pages that have blocks to run."""
    return [p for p in pages if any(block.not_run is None for block in documents.blocks(p))]


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", with_blocks([*PAGES, *WHOLE]), ids=lambda page: str(page.relative_to(ROOT))
)
def test_the_blocks_run_as_printed(page, tmp_path, request):
    if page in CARDS or page.name in (
        "speech.md",
        "zoo.md",
        "zoo_all.md",
    ):  # they train and measure
        request.getfixturevalue("data_folder")
    documents.run(page, tmp_path)


def task_of(card):
    """Return the first word of a preset's name."""
    return card.parent.name.partition("_")[0]


@pytest.mark.slow
@pytest.mark.parametrize("whole", WHOLE, ids=task_of)
def test_the_python_of_the_other_cards_runs(whole, tmp_path, data_folder):
    assert {task_of(card) for card in CARDS} == {task_of(card) for card in WHOLE}
    others = [card for card in CARDS if task_of(card) == task_of(whole) and card != whole]
    documents.run(others[0], tmp_path, *others[1:], languages=["python"])


@pytest.mark.parametrize("pages", [PAGES, [*PAGES, *CARDS]], ids=["pages", "pages and cards"])
def test_at_most_one_block_in_ten_is_not_run(pages):
    found = [block for page in pages for block in documents.blocks(page)]
    not_run = [block for block in found if block.not_run is not None]
    assert all(len(block.not_run.split()) > 2 for block in not_run), "a reason, in words"
    assert 10 * len(not_run) <= len(found), [block.place for block in not_run]


def write(folder: Path, text: str) -> Path:
    page = folder / "page.md"
    page.write_text(text, "utf-8")
    return page


def test_blocks_share_names_and_folder_in_the_order_of_the_page(tmp_path):
    page = write(
        tmp_path,
        "```python\nx = 3\n```\ntext\n```console\n$ echo 4 > four\n$ cat four\n4\n```\n"
        "```python\nassert x + int(open('four').read()) == 7\n```\n",
    )
    documents.run(page, tmp_path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("```python\nx\n```", "name 'x' is not defined"),
        ("```python\nimport warnings\nwarnings.warn('odd')\n```", "UserWarning: odd"),
        ("```console\n$ python -c 'import warnings; warnings.warn(\"odd\")'\n```", "odd"),
        ("```console\n$ false\n```", "page.md:2: exit code 1"),
        ("```console\n$ false; true\n```", "page.md:2: exit code 1"),
        ("```console\n$ echo 4\n5\n```", "did not print: 5"),
        ("```console\n$ echo '4\n5'\n```", ""),
    ],
)
def test_a_block_that_does_not_do_what_the_page_says_fails(tmp_path, text, says):
    with pytest.raises(AssertionError, match="does not run as printed") as raised:
        documents.run(write(tmp_path, text), tmp_path)
    assert says in str(raised.value)


def test_a_file_is_written_and_a_block_with_a_reason_is_left_out(tmp_path):
    page = write(
        tmp_path,
        "<!-- file: a.py -->\n```python\nprint('here, 12 s')\n```\n"
        "<!-- a mark -->\n<!-- not run: needs two machines -->\n```python\nexit(1)\n```\n"
        "```console\n$ python \\\n    a.py\nhere, ... s\n```\n```json\n{\n```\n",
    )
    assert [block.not_run for block in documents.blocks(page)] == [None, "needs two machines", None]
    documents.run(page, tmp_path)


def test_output_is_compared_line_by_line_in_order():
    printed = "one\n  two   2\nthree 0.5 s\n"
    assert documents.missing(["one", "...", "three ... s"], printed) is None
    assert documents.missing(["two 2"], printed) is None
    assert documents.missing(["three ... s", "one"], printed) == "one"
    assert documents.missing(["on"], printed) == "on"

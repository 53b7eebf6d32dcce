"""Tables for notebooks: plain HTML whose every text is escaped."""

from collections.abc import Iterable, Sequence
from html import escape

from snukeras._terminal import plain


def table(
    heads: Sequence[str],
    rows: Iterable[Sequence[object]],
    title: str = "",
    notes: Iterable[str] = (),
) -> str:
    """Return a table as HTML; the first column holds names, all others stand to the right.

    Args:
        heads: The first row.
        rows: The cells, as many in each row as there are heads.
        title: What stands above it.
        notes: Lines below it.
    """
    parts = ["<table>"]
    if title:
        style = "caption-side: top; text-align: left; font-weight: bold"
        parts.append(f'<caption style="{style}">{_text(title)}</caption>')
    parts.append(f"<thead>{_row(heads, 'th')}</thead><tbody>")
    parts += [_row(row, "td") for row in rows]
    parts.append("</tbody></table>")
    parts += [f"<p>{_text(note)}</p>" for note in notes]
    return "\n".join(parts)


def _row(cells: Sequence[object], tag: str) -> str:
    made = (
        f'<{tag} style="text-align: {"right" if place else "left"}">{_text(cell)}</{tag}>'
        for place, cell in enumerate(cells)
    )
    return f"<tr>{''.join(made)}</tr>"


def _text(value: object) -> str:
    return escape(plain(value))

"""Pictures for the report as text: SVG charts and small PNG images, drawn without a library."""

import base64
import html
import struct
import zlib
from collections.abc import Iterator, Sequence

import numpy as np

# Colours that stay apart without full colour vision (Okabe and Ito), dark enough on white.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
PLUS, MINUS = PALETTE[0], PALETTE[1]
# Lines and letters have the colour of the page's text, light or dark.
_INK = "currentColor"


def escape(text: object) -> str:
    """Return text for HTML; characters that XML forbids become "?"."""
    kept = "".join(c if c >= " " and not 0xD800 <= ord(c) <= 0xDFFF else "?" for c in str(text))
    return html.escape(kept.replace("\ufffe", "?").replace("\uffff", "?"))


def png(values: np.ndarray, limit: float) -> str:
    """Draw a heat map from -limit (orange) over 0 (white) to limit (blue), as a data URI.

    Args:
        values: (rows, columns).
        limit: The value that gets the full colour.
    """
    level = np.clip(np.nan_to_num(values) / (limit or 1.0), -1.0, 1.0)
    index = np.round(128.0 + 127.0 * level).astype("uint8")
    strength = (np.arange(256) - 128.0) / 127.0
    ends = [np.array([int(c[i : i + 2], 16) for i in (1, 3, 5)]) for c in (MINUS, PLUS)]
    colour = np.where(strength[:, None] > 0, ends[1], ends[0])
    palette = 255 + np.clip(np.abs(strength), 0, 1)[:, None] * (colour - 255)
    rows = b"".join(b"\0" + row.tobytes() for row in index)
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", index.shape[1], index.shape[0], 8, 3, 0, 0, 0)),
        (b"PLTE", np.round(palette).astype("uint8").tobytes()),
        (b"IDAT", zlib.compress(rows, 9)),
        (b"IEND", b""),
    ]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in parts
    )
    return "data:image/png;base64," + base64.b64encode(data).decode("ascii")


def shrink(values: np.ndarray, size: int = 192) -> np.ndarray:
    """Return at most size x size cells, each the value of largest magnitude in its part."""
    for axis in (0, 1):
        count = values.shape[axis]
        if count > size:
            edges = np.arange(size) * count // size
            high = np.maximum.reduceat(values, edges, axis=axis)
            low = np.minimum.reduceat(values, edges, axis=axis)
            values = np.where(high >= -low, high, low)
    return values


def histogram(plus: np.ndarray, minus: np.ndarray, g_max: float, title: str) -> str:
    """Draw counts of G+ upwards and of G- downwards over the conductance, as SVG.

    Heights are square roots of the counts: trained networks have few large weights, and these
    matter.

    Args:
        plus, minus: Counts in equal bins from 0 to g_max.
    """
    width, half, left = 360, 62, 8
    top = max(int(plus.max(initial=0)), int(minus.max(initial=0)), 1)
    step = (width - 2 * left) / len(plus)
    parts = [_open(width, 2 * half + 24, title)]
    for counts, colour, sign in ((plus, PLUS, -1), (minus, MINUS, 1)):
        for place, count in enumerate(counts):
            height = (count / top) ** 0.5 * (half - 14)
            y = half - height if sign < 0 else half
            if count:
                parts.append(
                    f'<rect x="{left + place * step:.2f}" y="{y:.2f}" width="{step * 0.86:.2f}" '
                    f'height="{height:.2f}" fill="{colour}"/>'
                )
    parts.append(_line(left, half, width - left, half))
    parts.append(_text(width - left, 12, f"G+; tallest bar {top:,}", "end"))
    parts.append(_text(width - left, 2 * half - 2, "G\u2212", "end"))
    parts.append(_text(left, 2 * half + 16, "0 \u00b5S"))
    parts.append(_text(width - left, 2 * half + 16, f"{g_max:g} \u00b5S", "end"))
    return "".join([*parts, "</svg>"])


def curves(
    lines: Sequence[tuple[str, Sequence[float], Sequence[float], Sequence[float]]],
    labels: Sequence[str],
    reference: tuple[str, float],
    title: str,
) -> str:
    """Draw means with their ranges over named times, as SVG.

    Args:
        lines: (name, mean, smallest, largest), the last three by time.
        labels: The times.
        reference: Name and height of a horizontal line.
        title: What a reader who cannot see it is told.
    """
    width, height, left, right, above, below = 360, 230, 46, 14, 16, 28
    every = [v for _, *parts in lines for part in parts for v in part] + [reference[1]]
    low, high = min(every), max(every)
    margin = 0.08 * (high - low) or max(abs(high), 1.0) * 0.05
    low, high = low - margin, high + margin

    inset = 12  # keeps the first mark off the numbers of the axis

    def x(place: int) -> float:
        return left + inset + (width - left - right - inset) * place / max(len(labels) - 1, 1)

    def y(value: float) -> float:
        return above + (height - above - below) * (high - value) / (high - low)

    parts = [_open(width, height, title)]
    for part in range(5):
        value = low + (high - low) * part / 4
        parts.append(_line(left, y(value), width - right, y(value), "#80808060"))
        parts.append(_text(left - 5, y(value) + 4, f"{value:.4g}", "end"))
    for place, label in enumerate(labels):
        anchor = "end" if place == len(labels) - 1 else "middle"
        parts.append(_text(x(place), height - 8, label, anchor))
    parts.append(_line(left, y(reference[1]), width - right, y(reference[1]), _INK, "2 3"))
    for number, (_, *line) in enumerate(lines):
        colour = PALETTE[(1, 0)[number]] if len(lines) <= 2 else PALETTE[number]
        points = [
            (x(i), y(mean), y(low), y(high))
            for i, (mean, low, high) in enumerate(zip(*line, strict=True))
        ]
        parts += _curve(points, colour, dashed=number == 0)
    return "".join([*parts, "</svg>"])


def _curve(points: Sequence[tuple[float, ...]], colour: str, dashed: bool) -> Iterator[str]:
    """Draw one line through (x, mean, smallest, largest), with squares or discs on it."""
    way = " ".join(f"{x:.2f},{mean:.2f}" for x, mean, _, _ in points)
    yield (
        f'<polyline points="{way}" fill="none" stroke="{colour}" stroke-width="2.5" '
        f'stroke-dasharray="{"6 4" if dashed else "none"}"/>'
    )
    for x, mean, smallest, largest in points:
        yield _line(x, smallest, x, largest, colour)
        if dashed:
            yield (
                f'<rect x="{x - 4:.2f}" y="{mean - 4:.2f}" width="8" height="8" fill="{colour}"/>'
            )
        else:
            yield f'<circle cx="{x:.2f}" cy="{mean:.2f}" r="4.5" fill="{colour}"/>'


def tile(
    size: tuple[int, int],
    boxes: Sequence[tuple[float, float, float, float, str, str]],
    title: str,
) -> str:
    """Draw one tile with the blocks on it, as SVG.

    Args:
        size: Word lines and bit lines.
        boxes: (word line, bit line, word lines, bit lines, colour, mark) of each block.
        title: What a reader who cannot see it is told.
    """
    scale = 150 / max(size)
    width, height = max(size[1] * scale, 4.0), max(size[0] * scale, 4.0)
    parts = [_open(width + 4, height + 4, title)]
    parts.append(
        f'<rect x="2" y="2" width="{width:.2f}" height="{height:.2f}" fill="#80808026" '
        'stroke="#767676"/>'
    )
    for top, left, rows, columns, colour, mark in boxes:
        x, y, w, h = 2 + left * scale, 2 + top * scale, columns * scale, rows * scale
        parts.append(
            f'<rect x="{x:.2f}" y="{y:.2f}" width="{w:.2f}" height="{h:.2f}" fill="{colour}" '
            'stroke="#ffffff" stroke-width="0.8"/>'
        )
        if w > 12 and h > 13:
            # A white disc: black on it is readable whatever the colour.
            parts.append(
                f'<circle cx="{x + w / 2:.2f}" cy="{y + h / 2:.2f}" r="{min(w, h, 19) / 2:.2f}" '
                'fill="#ffffff"/>'
            )
            parts.append(_text(x + w / 2, y + h / 2 + 4, mark, "middle", "#1a1a1a"))
    return "".join([*parts, "</svg>"])


def _open(width: float, height: float, title: str) -> str:
    # No width: the page's style makes a picture as wide as its place.
    return (
        f'<svg viewBox="0 0 {width:.4g} {height:.4g}" role="img" '
        f'aria-label="{escape(title)}" font-size="11" fill="{_INK}">'
    )


def _line(
    x1: float, y1: float, x2: float, y2: float, colour: str = _INK, dash: str = "none"
) -> str:
    return (
        f'<line x1="{x1:.2f}" y1="{y1:.2f}" x2="{x2:.2f}" y2="{y2:.2f}" stroke="{colour}" '
        f'stroke-dasharray="{dash}"/>'
    )


def _text(x: float, y: float, text: object, anchor: str = "start", colour: str = _INK) -> str:
    place = f'x="{x:.2f}" y="{y:.2f}" text-anchor="{anchor}" fill="{colour}"'
    return f"<text {place}>{escape(text)}</text>"

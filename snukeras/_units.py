"""Write quantities so that people can read them: three digits and the unit that fits."""

_ENERGY = ((1e9, "J"), (1e6, "mJ"), (1e3, "uJ"), (1.0, "nJ"), (1e-3, "pJ"))
_TIME = ((1e9, "s"), (1e6, "ms"), (1e3, "us"), (1.0, "ns"))
_BYTES = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B"))
_NAMES = {25.0: "25 s", 3600.0: "1 h", 86400.0: "1 day", 31536000.0: "1 year"}
_LONG = ((31536000.0, "year"), (86400.0, "day"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))


def energy_text(nanojoules: float) -> str:
    """Return an energy: "11.5 uJ"."""
    return _text(nanojoules, _ENERGY)


def latency_text(nanoseconds: float) -> str:
    """Return a short time: "1.04 us"."""
    return _text(nanoseconds, _TIME)


def range_text(low: str, high: str) -> str:
    """Return two quantities as a range, the unit once if it is the same: "5.4 to 106 nJ"."""
    (first, unit), (_, other) = low.split(" "), high.split(" ")
    if low == high:
        return low
    return f"{first} to {high}" if unit == other else f"{low} to {high}"


def size_text(count: int) -> str:
    """Return a number of bytes: "12.3 KiB"."""
    size, unit = next(pair for pair in _BYTES if count >= pair[0] or pair[0] == 1)
    return f"{count} B" if unit == "B" else f"{count / size:.1f} {unit}"


def time_text(seconds: float) -> str:
    """Return a time on a chip: "25 s", "1 h", "1 year"."""
    if seconds in _NAMES:
        return _NAMES[seconds]
    size, unit = next((pair for pair in _LONG if seconds >= pair[0]), (1.0, "s"))
    number = f"{seconds / size:.3g}"
    return f"{number} {unit}s" if number != "1" and unit in ("year", "day") else f"{number} {unit}"


def rounded(value: float) -> float:
    """Round to six digits, so that a report does not depend on the order of a sum."""
    return float(f"{float(value):.6g}")


def _text(value: float, units: tuple[tuple[float, str], ...]) -> str:
    size, unit = next((pair for pair in units if abs(value) >= pair[0] * 0.9995), units[-1])
    number = value / size
    return f"{number:.3g} {unit}" if number < 999.5 else f"{number:,.0f} {unit}"

"""Which cases of a test run by default, and which with `-m slow`; conftest.py applies it."""

import itertools
from collections.abc import Hashable, Mapping, Sequence


def chosen(cases: Sequence[Mapping[str, Hashable]], keep: int) -> list[int]:
    """Choose cases in which as many pairs of values occur as their number allows.

    Args:
        cases: for each case the value of each parameter.
        keep: how many cases to choose.

    Returns:
        The indices of the chosen cases. The first case is always among them; each further one adds
        the most pairs that no earlier one has.
    """
    pairs = [set(itertools.combinations(sorted(case.items()), 2)) for case in cases]
    values = [set(case.items()) for case in cases]
    seen: set[Hashable] = set()
    left, found = list(range(len(cases))), []
    while left and len(found) < keep:
        best = max(left, key=lambda i: (len(values[i] - seen), len(pairs[i] - seen), -i))
        seen |= values[best] | pairs[best]
        left.remove(best)
        found.append(best)
    return found

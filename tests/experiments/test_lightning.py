"""Training on tiles beside another package: our side, and the table."""

import numpy as np
import pytest

from experiments import lightning, reporting
from snukeras import _files


@pytest.mark.slow
def test_our_side_learns_and_the_table_shows_it(tmp_path):
    random = np.random.default_rng(0)
    y = random.integers(0, 10, 600)
    x = random.integers(0, 60, (600, 28, 28), "uint8")
    x[np.arange(600), y * 2 + 4] += 190
    data = (x[:500], y[:500]), (x[500:], y[500:])
    found = lightning.experiment(1, 12, {"snukeras": lightning.Ours}, data)
    side = found["sides"]["snukeras"]
    assert side["correct"][0] > 60 and side["epoch_s"] > 0
    _files.write_json(reporting.folder(lightning.RESULTS, tmp_path), found)
    assert f"| snukeras | {side['correct'][0]:.2f} | " in lightning.table(tmp_path)

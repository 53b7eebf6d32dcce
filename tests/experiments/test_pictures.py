"""The pictures of the pages of results: drawn from the figures there, readable without colour."""

import pytest

from benchmark import tables as speed_tables
from experiments import pictures, spatial_tiles
from experiments.__main__ import table
from experiments.grapes import tables as grapes_tables

pytest.importorskip("matplotlib")


def test_every_picture_is_drawn_and_on_its_page(tmp_path):
    written = pictures.draw(folder=tmp_path)
    assert [path.name for path in written] == [f"results_{name}.png" for name in pictures.PICTURES]
    for path in written:
        assert 5_000 < path.stat().st_size < 60_000
        assert (pictures.FOLDER / path.name).exists()
        page = pictures.FOLDER.parent / f"{path.stem.removeprefix('results_')}.md"
        assert f"](pictures/{path.name})" in page.read_text("utf-8")


def test_bars_begin_at_zero_and_differ_without_colour():
    figure = pictures.speed()
    (axis,) = figure.axes
    assert axis.get_ylim()[0] == 0 and axis.get_yscale() == "linear"
    assert len({bars.patches[0].get_hatch() for bars in axis.containers}) == len(axis.containers)
    heights = {bars.get_label(): [bar.get_height() for bar in bars] for bars in axis.containers}
    assert heights == speed_tables.ratios()


def test_figures_of_pictures_are_those_of_the_tables():
    rows = {row["label"]: row for row in grapes_tables.differences() if row["figure"] == "test"}
    mean, error = rows["SNU, PCMNoise"]["matched"]
    assert f"| {mean:+.2f} ± {error:.2f} |" in table("grapes", "short")
    place = spatial_tiles.SHARES.index(0.95)
    values = spatial_tiles.crossings("dense", "spatial", "position")[place]
    assert f"| {sum(values) / len(values):.0f} ±" in table("spatial_tiles", "short")


def test_the_command_names_what_it_knows(capsys):
    assert pictures.main(["nothing"]) == 1
    assert "['grapes', 'level_tuned', 'spatial', 'speed']" in capsys.readouterr().err

"""Pictures of the music models."""

import pytest

from snukeras.zoo import pictures
from snukeras.zoo.command import main

pytest.importorskip("matplotlib")


@pytest.mark.some_cases(1)
@pytest.mark.parametrize("name", ["jsb_snu", "jsb_ssnu"])
def test_picture_of_a_shipped_model(name, tmp_path):
    assert main(["picture", name, "--output", str(tmp_path / "a.svg"), "--chorale", "2"]) == 0
    drawn = (tmp_path / "a.svg").read_text()
    assert drawn.count("<image") == 3


def test_no_such_chorale_or_model(tmp_path, capsys):
    with pytest.raises(ValueError, match="0 to 7"):
        pictures.draw("jsb_snu", tmp_path / "a.png", chorale=8)
    assert main(["picture", "jsb_none", "--output", "a.png"]) == 2
    assert "jsb_snu" in capsys.readouterr().err

"""What the devices cost: the measurements run, and the table shows them."""

import json

from experiments import pcm_speed


def test_measures_and_keeps_other_parts(tmp_path):
    path = tmp_path / pcm_speed.RESULTS
    for part in pcm_speed.PARTS:
        assert pcm_speed.main(["--parts", part, "--quick", "--output", str(path)]) == 0
    results = json.loads(path.read_text())
    assert {*pcm_speed.PARTS, "versions", "format"} == set(results)
    assert results["devices"]["devices"] == 52_800
    assert "| snukeras.pcm.GenericPCM |" in pcm_speed.table("devices", tmp_path)
    assert "| SNU, 50 time steps |" in pcm_speed.table("noise", tmp_path)
    assert "| 52,800 devices in the loop |" in pcm_speed.table("loop", tmp_path)

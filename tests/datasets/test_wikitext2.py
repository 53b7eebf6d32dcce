"""WikiText-2: both ways it may lie in a folder give the same words."""

import numpy as np
import pytest

from snukeras.datasets import wikitext2


@pytest.mark.slow
def test_real_files(data_folder, tmp_path):
    splits, vocabulary = wikitext2.load_data()
    assert [len(split) for split in splits] == [2_088_628, 217_646, 245_569]
    assert len(vocabulary) == len(set(vocabulary)) == 33_278
    assert splits.train.dtype == np.int32 and splits.train.max() == 33_277
    text = [vocabulary[number] for number in splits.valid[1:6]]
    assert text == ["=", "Homarus", "gammarus", "=", "<eos>"]
    # The public texts, made from the packed file: a line starts and ends with a space.
    for source, tokens in zip(wikitext2.SOURCES, splits, strict=True):
        lines = " ".join(vocabulary[number] for number in tokens).split("<eos>")
        assert lines.pop() == ""
        whole = "".join(f" {line.strip()} \n" if line.strip() else " \n" for line in lines)
        (tmp_path / source.name).write_bytes(whole.encode())
    again, words = wikitext2.load_data(tmp_path)
    assert words == vocabulary
    for one, other in zip(again, splits, strict=True):
        np.testing.assert_array_equal(one, other)


def test_absent_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"`path`.*wikitext2\.npz.*wikitext2\.train\.txt"):
        wikitext2.load_data(tmp_path / "absent")


def test_another_file_is_refused(tmp_path):
    (tmp_path / "wikitext2.npz").write_bytes(b"something else")
    with pytest.raises(ValueError, match=r"wikitext2\.npz.*sha256"):
        wikitext2.load_data(tmp_path)

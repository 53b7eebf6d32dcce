"""Penn Treebank: tokens and vocabulary."""

import numpy as np
import pytest

from snukeras.datasets import penn_treebank


def test_real_files(data_folder):
    splits, vocabulary = penn_treebank.load_data()
    assert [len(split) for split in splits] == [929_589, 73_760, 82_430]
    assert len(vocabulary) == len(set(vocabulary)) == 10_000
    assert vocabulary[:4] == ["the", "<unk>", "<eos>", "N"]
    assert splits[0].dtype == np.int32 and splits[0].max() == 9_999
    end = vocabulary.index("<eos>")
    assert (splits[0] == end).sum() == 42_068
    text = [vocabulary[number] for number in splits[2][:6]]
    assert text == ["no", "it", "was", "n't", "black", "monday"]


def test_path_has_to_be_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"`path`.*ptb\.train\.txt"):
        penn_treebank.load_data(tmp_path / "absent")

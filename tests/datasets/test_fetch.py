"""Files of data sets: where they are looked for, and what is refused."""

import errno
import hashlib
import urllib.error
import urllib.request

import pytest

from snukeras.datasets import _fetch
from snukeras.datasets._fetch import Source, fetch

CONTENT = bytes(range(256)) * 500


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A source whose public address is a file, with an empty cache."""
    monkeypatch.delenv("SNUKERAS_DATA", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    public = tmp_path / "public.bin"
    public.write_bytes(CONTENT)
    return Source("rolls.bin", public.as_uri(), len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def public_file(source):
    return urllib.request.url2pathname(source.url.removeprefix("file://"))


def test_downloads_once_with_progress(source, capsys, monkeypatch):
    path = fetch(source)
    assert path == _fetch.cache_folder() / "rolls.bin"
    assert path.read_bytes() == CONTENT
    shown = capsys.readouterr().out
    assert "rolls.bin" in shown and f"{len(CONTENT)}/{len(CONTENT)}" in shown
    monkeypatch.setattr(urllib.request, "urlopen", lambda *a, **k: pytest.fail("asked again"))
    assert fetch(source) == path


def test_without_network_says_what_to_fetch_and_where_to_put_it(source, no_network):
    with pytest.raises(ConnectionError) as error:
        fetch(source)
    for part in (
        source.url,
        source.sha256,
        str(_fetch.cache_folder() / "rolls.bin"),
        "SNUKERAS_DATA",
        "no network",
    ):
        assert part in str(error.value)
    assert list(_fetch.cache_folder().iterdir()) == []


def test_cache_serves_without_network(source, no_network):
    _fetch.cache_folder().mkdir(parents=True)
    (_fetch.cache_folder() / "rolls.bin").write_bytes(CONTENT)
    assert fetch(source).read_bytes() == CONTENT


def test_folder_of_the_variable_comes_before_the_cache(source, no_network, tmp_path, monkeypatch):
    (tmp_path / "rolls.bin").write_bytes(CONTENT)
    monkeypatch.setenv("SNUKERAS_DATA", str(tmp_path))
    assert fetch(source) == tmp_path / "rolls.bin"


def test_folder_of_the_variable_without_the_file(source, tmp_path, monkeypatch):
    monkeypatch.setenv("SNUKERAS_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"SNUKERAS_DATA leads to .*rolls\.bin"):
        fetch(source)


def test_argument_may_be_file_or_folder(source, no_network, tmp_path):
    (tmp_path / "rolls.bin").write_bytes(CONTENT)
    assert fetch(source, tmp_path) == tmp_path / "rolls.bin"
    (tmp_path / "mine.bin").write_bytes(CONTENT)
    assert fetch(source, tmp_path / "mine.bin") == tmp_path / "mine.bin"
    with pytest.raises(FileNotFoundError, match="`path`"):
        fetch(source, tmp_path / "absent.bin")


@pytest.mark.parametrize("place", ["argument", "variable", "cache", "download"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (CONTENT[:-7], rf"size {len(CONTENT) - 7} bytes instead of {len(CONTENT)} \(truncated\)"),
        (CONTENT + b"x", "too long"),
        (b"\1" + CONTENT[1:], "rolls.bin: sha256 [0-9a-f]{64} instead of [0-9a-f]{64}"),
    ],
)
def test_another_file_is_refused_by_what_differs(
    source, tmp_path, monkeypatch, place, content, message
):
    path = None
    if place == "download":
        (tmp_path / "public.bin").write_bytes(content)
    elif place == "cache":
        _fetch.cache_folder().mkdir(parents=True)
        (_fetch.cache_folder() / "rolls.bin").write_bytes(content)
    else:
        (tmp_path / "rolls.bin").write_bytes(content)
        if place == "argument":
            path = tmp_path / "rolls.bin"
        else:
            monkeypatch.setenv("SNUKERAS_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=message):
        fetch(source, path)
    if place == "download":
        assert list(_fetch.cache_folder().iterdir()) == []


def test_interrupted_download_leaves_nothing(source, monkeypatch):
    class Broken:
        def __init__(self):
            self.blocks = [CONTENT[:1000]]

        def __enter__(self):
            return self

        def __exit__(self, *args):
            return False

        def read(self, size):
            if not self.blocks:
                raise KeyboardInterrupt
            return self.blocks.pop()

    monkeypatch.setattr(urllib.request, "urlopen", lambda *args, **kwargs: Broken())
    with pytest.raises(KeyboardInterrupt):
        fetch(source)
    assert list(_fetch.cache_folder().iterdir()) == []


def test_connection_lost_half_way(source, monkeypatch):
    class Lost:
        def __enter__(self):
            return self

        def __exit__(self, *args):
            return False

        def read(self, size):
            raise TimeoutError("timed out")

    monkeypatch.setattr(urllib.request, "urlopen", lambda *args, **kwargs: Lost())
    with pytest.raises(ConnectionError, match="timed out"):
        fetch(source)
    assert list(_fetch.cache_folder().iterdir()) == []


def test_a_full_disk_is_no_matter_of_the_network(source, monkeypatch):
    class Full:
        """A file on a disk that takes a block and no more."""

        def __init__(self, handle, mode):
            self.file, self.blocks = open(handle, mode), 0  # noqa: SIM115

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def write(self, block):
            self.blocks += 1
            if self.blocks > 1:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.file.write(block)

    monkeypatch.setattr(_fetch.os, "fdopen", Full)
    with pytest.raises(OSError, match="could not be written after 65536 bytes") as raised:
        fetch(source)
    assert not isinstance(raised.value, ConnectionError) and raised.value.errno == errno.ENOSPC
    for part in ("No space left", "Make room in", "KERAS_HOME"):
        assert part in str(raised.value)
    assert list(_fetch.cache_folder().iterdir()) == []

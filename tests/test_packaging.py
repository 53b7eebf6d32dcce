"""What ships: the metadata, the index page, and all that sdist and wheel have to hold."""

import importlib.util
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

import snukeras

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
README = (ROOT / "README.md").read_text("utf-8")


@pytest.fixture(scope="module")
def index_page():
    spec = importlib.util.spec_from_file_location("setup_of_snukeras", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.index_page


def targets(page):
    """Where links and pictures of a page lead, code left out."""
    return re.findall(r"\]\(([^()\s]+)\)", re.sub(r"```.*?```", "", page, flags=re.DOTALL))


def test_without_an_address_nothing_on_the_index_page_leads_to_a_file(index_page):
    assert any(not target.startswith("https://") for target in targets(README))
    page = index_page(README, "")
    assert targets(page) and all(target.startswith("https://") for target in targets(page))
    assert "![" not in page and "docs/zoo.md" in page
    # Words and code stay.
    assert re.findall(r"```.*?```", page, re.DOTALL) == re.findall(r"```.*?```", README, re.DOTALL)


def test_with_an_address_all_lead_there(index_page):
    page = index_page(README, "https://example.org/snukeras")
    assert "[docs/zoo.md](https://example.org/snukeras/blob/HEAD/docs/zoo.md)" in page
    assert "](https://example.org/snukeras/raw/HEAD/docs/pictures/way.svg)" in page
    assert all(target.startswith("https://") for target in targets(page))


def test_code_and_anchors_are_no_links(index_page):
    text = "[a](#a) and\n```python\nf[0](x)\n```\n[b](https://b.org) [c](c.md)\n"
    assert index_page(text, "") == text.replace("[c](c.md)", "c")


def test_the_address_stands_in_one_place():
    """Addresses of other projects may stand anywhere; this one's is read from pyproject.toml."""
    address = PROJECT["tool"]["snukeras"]["repository"]
    assert not address.endswith("/") and "urls" in PROJECT["project"]["dynamic"]
    for name in ("CITATION.cff", "SECURITY.md", "CONTRIBUTING.md", "setup.cfg", "setup.py"):
        text = (ROOT / name).read_text("utf-8")
        assert not re.search(r"https?://(?!doi\.org)", text), name


def test_metadata():
    project = PROJECT["project"]
    assert project["license"] == "Apache-2.0"  # SPDX, which needs setuptools 77
    assert PROJECT["build-system"]["requires"] == ["setuptools>=77"]
    assert not any(c.startswith("License ::") for c in project["classifiers"])
    assert project["authors"] == [{"name": "The snukeras authors"}]
    assert len(project["keywords"]) >= 5


def test_one_version_everywhere():
    version = re.escape(snukeras.__version__)
    assert re.search(rf"^version: {version}$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    first = re.search(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)[1]
    assert re.fullmatch(rf"{version} \((unreleased|\d{{4}}-\d\d-\d\d)\)", first)


def test_continuous_integration_covers_what_the_metadata_promise():
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8")
    found = [c.split(" :: ")[-1] for c in PROJECT["project"]["classifiers"] if ":: 3." in c]
    assert f"python: {found}".replace("'", '"') in workflow
    for word in ("lowest-direct", "jax", "torch", "python -m build", "tests/experiments"):
        assert word in workflow
    release = (ROOT / ".github" / "workflows" / "release.yml").read_text("utf-8")
    assert "id-token: write" in release and "secrets." not in release + workflow


def test_results_of_experiments_are_not_content():
    """zoo/ is packed into the wheel: of figures it holds those of models and of searches."""
    models = {path.parent.name for path in (ROOT / "zoo").glob("*/recipe.json")}
    for path in (ROOT / "zoo" / "results").iterdir():
        assert path.name in ("search", "jsb_snu.png") or path.stem in models, path


@pytest.mark.slow
def test_sdist_and_wheel(tmp_path):
    pytest.importorskip("build", reason="pip install build")
    subprocess.run([sys.executable, "-m", "build", "--outdir", tmp_path, ROOT], check=True)
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        inside = {name.split("/", 1)[-1] for name in archive.getnames()}
        archive.extractall(tmp_path / "sdist", filter="data")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode == 0:  # an unpacked sdist is no git checkout
        assert set(listed.stdout.split()) <= inside
    assert not any("__pycache__" in name for name in inside)
    (unpacked,) = (tmp_path / "sdist").iterdir()
    its_own = [sys.executable, "-m", "pytest", "-n0", "-q", "-p", "no:cacheprovider"]
    some = ["tests/test_architecture.py", "tests/export/test_records.py"]
    for tests in (["--collect-only"], some):
        subprocess.run([*its_own, *tests], cwd=unpacked, check=True)

    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (path,) = [name for name in names if name.endswith(".dist-info/METADATA")]
        metadata = message_from_bytes(archive.read(path))
    assert {name.split("/")[0] for name in names} == {
        "_snukeras_command.py", "snukeras", path.split("/")[0],
    }  # fmt: skip
    assert "snukeras/py.typed" in names and "snukeras/zoo/_data/jsb_snu/preset.json" in names
    for reader in ("snumap_reader.py", "snumap.h", "snumap_dump.c"):
        assert f"snukeras/export/_data/readers/{reader}" in names
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Author"] == "The snukeras authors"
    assert metadata["Description-Content-Type"] == "text/markdown"
    address = PROJECT["tool"]["snukeras"]["repository"]
    assert bool(metadata.get_all("Project-URL")) == bool(address)

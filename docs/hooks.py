"""Hooks of mkdocs: bring into the site what stands outside docs/, and leave the files as they are.

On the pages of the repository links lead from file to file, so that they work there too. Contracts,
cards and changelog get pages of the site; pictures and schemas that a page links are copied; a link
to any other file leads to the repository's public address, or becomes its words without one.
"""

import base64
import json
import re
import tomllib
from pathlib import Path
from posixpath import dirname, join, normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["snukeras"][
    "repository"
]
CARDS = {
    f"zoo/{path.parent.name}/README.md": f"cards/{path.parent.name}.md"
    for path in sorted((ROOT / "zoo").glob("*/README.md"))
}
# File of the repository to place in the site.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "export/README.md": "reference/export-folder.md",
    "export/crossbar-map.md": "reference/crossbar-map.md",
    "zoo/README.md": "reference/recipes.md",
    **CARDS,
}
COPIED = (".png", ".svg", ".json", ".csv", ".snumap", "_reader.py", ".c", ".h")

# The picture that the player takes the place of, where `python docs/front_page.py` has built one.
_PLAYER = re.compile(r"<!-- player -->\n(.*?)<!-- end of the player -->\n", re.DOTALL)
_PLAYER_HTML = """\
Beside it stands the same network as a chip of analog memory holds it a year after it was written.
Press Play; all of it is computed in your browser.

<link rel="stylesheet" href="try/player.css">
<script type="module" src="try/player.js"></script>
<div data-snu-player data-networks="try/trained try/a_year_later" data-runtime="try"
data-titles="As trained|On a chip, a year later" data-size="14 MB" markdown>

{picture}
</div>
"""

_SOURCES = {place: source for source, place in PAGES.items() if source != "README.md"}
_CODE = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(!?)\[([^\[\]]*)\]\(([^()\s]+)\)")
_COMMENT = re.compile(r"^<!--.*?-->\n", re.DOTALL | re.MULTILINE)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the cards to the section Zoo, and the repository's address where there is one."""
    config.repo_url = REPOSITORY or None
    (zoo,) = (part["Zoo"] for part in config.nav if "Zoo" in part)
    zoo.append({"Cards": list(CARDS.values())})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside docs/, and the files there that any page links."""
    pages = {f"docs/{file.src_uri}" for file in files.documentation_pages()}
    for place, source in _SOURCES.items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / source)))
    for path in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        page, pictures = _notebook(path)
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=page))
        for name, picture in pictures.items():
            files.append(File.generated(config, f"notebooks/{name}", content=picture))
    for page in sorted(pages | set(_SOURCES.values())):
        for _, _, target in _LINK.findall((ROOT / page).read_text("utf-8")):
            path = _of_repository(page, target)
            if _is_copied(path) and files.get_file_from_path(f"files/{path}") is None:
                copy = File.generated(config, f"files/{path}", abs_src_path=str(ROOT / path))
                files.append(copy)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Leave out comments, which are for tests, and let links lead to places of the site."""
    place = page.file.src_uri
    source = _SOURCES.get(place, f"docs/{place}")
    if (ROOT / "docs" / "try").is_dir():
        markdown = _PLAYER.sub(lambda found: _PLAYER_HTML.format(picture=found[1]), markdown)
    parts = _CODE.split(markdown)
    # Code is left as it is: every second part.
    parts[::2] = [
        _LINK.sub(lambda found: _linked(found, source, place), _COMMENT.sub("", part))
        for part in parts[::2]
    ]
    return "".join(parts)


def _notebook(path: Path) -> tuple[str, dict[str, bytes]]:
    """Return a notebook as a page of text, code and what it showed, and its pictures by name."""
    parts, pictures = [], {}
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(text)
            continue
        parts.append(f"```python\n{text}\n```")
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/png" in data:
                name = f"{path.stem}_{len(pictures)}.png"
                pictures[name] = base64.b64decode(data["image/png"])
                parts.append(f"![{cell['metadata']['alt']}]({name})")
            elif "text/html" in data:
                parts.append("".join(data["text/html"]))
            else:
                shown = "".join(output.get("text", data.get("text/plain", "")))
                parts.append(f"```text\n{shown.rstrip()}\n```")
    parts.insert(1, f"[The notebook, to run it]({path.name})")
    return "\n\n".join(parts) + "\n", pictures


def _of_repository(source: str, target: str) -> str:
    """Return the path in the repository that a link of the file `source` leads to."""
    return normpath(join(dirname(source), target.partition("#")[0]))


def _is_copied(path: str) -> bool:
    outside = not path.startswith("docs/") and path.endswith(COPIED)
    return outside and (ROOT / path).is_file()


def _linked(found: re.Match[str], source: str, place: str) -> str:
    picture, words, target = found.groups()
    if re.match(r"[a-z]+:|#", target):
        return found[0]
    path, anchor = _of_repository(source, target), target.partition("#")[1:]
    if path in PAGES:
        leads = PAGES[path]
    elif path.startswith("docs/") and not path.endswith(".py"):
        leads = path.removeprefix("docs/")
    elif _is_copied(path):
        leads = f"files/{path}"
    elif REPOSITORY:
        return f"{picture}[{words}]({REPOSITORY}/blob/HEAD/{path})"
    else:
        return words
    return f"{picture}[{words}]({relpath(leads, dirname(place) or '.')}{''.join(anchor)})"

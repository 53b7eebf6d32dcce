"""Add to pyproject.toml what depends on the repository's public address: links and index page."""

import re
import tomllib
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).resolve().parent


def index_page(readme: str, repository: str) -> str:
    """Return README.md as a package index shows it, where a file of the repository is far away.

    Args:
        readme: Markdown with links and pictures relative to the repository.
        repository: Its public address. With one, links and pictures lead there; where it is empty,
            a link becomes its words and a picture is left out.
    """

    def link(found: re.Match[str]) -> str:
        picture, words, target = found.groups()
        if re.match(r"[a-z]+:|#", target):
            return found[0]
        if not repository:
            return "" if picture else words
        return f"{picture}[{words}]({repository}/{'raw' if picture else 'blob'}/HEAD/{target})"

    parts = re.split(r"(^```.*?^```$)", readme, flags=re.DOTALL | re.MULTILINE)
    # Code is left as it is: every second part.
    parts[::2] = [re.sub(r"(!?)\[([^\[\]]*)\]\(([^()\s]+)\)", link, part) for part in parts[::2]]
    return re.sub(r"\n{3,}", "\n\n", "".join(parts))


if __name__ == "__main__":
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    address = project["tool"]["snukeras"]["repository"]
    setup(
        long_description=index_page((ROOT / "README.md").read_text("utf-8"), address),
        long_description_content_type="text/markdown",
        project_urls={"Repository": address} if address else {},
    )

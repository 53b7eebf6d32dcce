"""Add to pyproject.toml and setup.cfg what they cannot say.

Links and index page depend on the repository's public address, and an editable install takes other
folders than a wheel does.
"""

import re
import tomllib
from pathlib import Path

from setuptools import setup
from setuptools.command.editable_wheel import editable_wheel

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


class EditableWheel(editable_wheel):
    """An editable install by a path to this folder, which editors and type checkers can follow.

    For the content folders that setup.cfg maps into the wheel, setuptools would install an import
    hook, which they cannot follow. In a checkout snukeras._content finds these folders by itself.
    """

    def finalize_options(self) -> None:
        super().finalize_options()
        self.package_dir = {"": "."}


if __name__ == "__main__":
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    address = project["tool"]["snukeras"]["repository"]
    setup(
        cmdclass={"editable_wheel": EditableWheel},
        long_description=index_page((ROOT / "README.md").read_text("utf-8"), address),
        long_description_content_type="text/markdown",
        project_urls={"Repository": address} if address else {},
    )

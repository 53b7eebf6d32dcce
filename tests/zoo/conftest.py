"""Fixtures for the zoo."""

import pytest
from tiny_zoo import make_task, write_recipe

from snukeras.zoo.publishing import publish


@pytest.fixture(scope="session")
def small_zoo(tmp_path_factory):
    """Content folder with the preset "tiny", published, and the folder of its runs."""
    content = write_recipe(tmp_path_factory.mktemp("content"))
    runs = tmp_path_factory.mktemp("runs")
    publish.train_and_publish(
        "tiny",
        content,
        runs,
        progress=lambda event: None,
        tasks={"scales": make_task()},
    )
    return content, runs

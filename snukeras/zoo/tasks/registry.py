"""Find the task of a recipe."""

from collections.abc import Mapping
from typing import Any

from snukeras.zoo import presets
from snukeras.zoo.tasks import TASKS, Task


def task_of(recipe: dict[str, Any], tasks: Mapping[str, Task] = TASKS) -> Task:
    """Return the task that a recipe or a preset names.

    Raises:
        ValueError: No such task.
    """
    if recipe["task"] not in tasks:
        raise presets.unknown(recipe["task"], sorted(tasks), "task")
    return tasks[recipe["task"]]

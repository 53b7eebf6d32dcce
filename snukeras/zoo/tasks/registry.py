"""Find the task of a recipe or a preset."""

from collections.abc import Mapping

from snukeras.zoo import presets
from snukeras.zoo.tasks import TASKS, Task


def task_of(name: str, tasks: Mapping[str, Task] = TASKS) -> Task:
    """Return the task of this name.

    Raises:
        ValueError: No such task.
    """
    if name not in tasks:
        raise presets.unknown(name, sorted(tasks), "task")
    return tasks[name]

"""Tasks: the data, loss, metric and golden input of each task that the zoo has models for."""

from snukeras.zoo.tasks.classification import Classification
from snukeras.zoo.tasks.images import MNIST, Digits
from snukeras.zoo.tasks.piano_rolls import JSB_CHORALES, NOTTINGHAM, PianoRolls
from snukeras.zoo.tasks.speech import SPOKEN_DIGITS, SpokenDigits
from snukeras.zoo.tasks.task import SPLITS, Task
from snukeras.zoo.tasks.text import PENN_TREEBANK, WIKITEXT2, Words

__all__ = [
    "SPLITS",
    "TASKS",
    "Classification",
    "Digits",
    "PianoRolls",
    "SpokenDigits",
    "Task",
    "Words",
]

TASKS: dict[str, Task] = {
    task.name: task
    for task in (JSB_CHORALES, MNIST, NOTTINGHAM, PENN_TREEBANK, SPOKEN_DIGITS, WIKITEXT2)
}

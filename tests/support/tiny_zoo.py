"""A made-up task with few and short songs, and a recipe for it: the zoo in seconds."""

import json

import numpy as np

from snukeras.zoo.tasks import PianoRolls


def songs(count, seed):
    """Songs that can be learned: scales up the keyboard, of various lengths."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        roll = np.zeros((random.integers(6, 16), 88), np.uint8)
        steps = np.arange(len(roll))
        roll[steps, (random.integers(88) + 2 * steps) % 88] = 1
        made.append(roll)
    return made


def load():
    return songs(13, 1), songs(5, 2), songs(5, 3)


PUBLISHED = {
    "format": 1,
    "sources": {"nobody": {"citation": "Nobody 1999", "url": "https://example.org", "read": "no"}},
    "figures": {
        "a-scale": {
            "task": "scales",
            "value": 1.5,
            "network": "88 - nothing",
            "protocol": "by ear",
            "source": "nobody",
        }
    },
}


def make_task():
    return PianoRolls("scales", "Scales", load, "0" * 64, "none needed")


def make_recipe(**changes):
    return {
        "format": 1,
        "name": "tiny",
        "title": "A tiny network",
        "description": "For the tests.",
        "licence": "Apache-2.0",
        "published": "a-scale",
        "task": "scales",
        "network": {
            "input": "roll",
            "input_shape": [None, 88],
            "layers": [
                {
                    "class": "SNU",
                    "units": 6,
                    "decay": {"uniform": [0.3, 0.9]},
                    "trainable_decay": True,
                    "return_sequences": True,
                },
                {"class": "Dropout", "rate": 0.3},
                {"class": "Dense", "units": 88, "activation": "sigmoid"},
            ],
        },
        "optimizer": {"class": "AdamW", "learning_rate": 0.05, "clipnorm": 1.0},
        "schedule": {"class": "cosine", "warmup_epochs": 1},
        "averaging": {"class": "ema", "momentum": 0.5},
        "epochs": 4,
        "batch_size": 4,
        "padding": [8, 12],
        "seeds": [0, 1],
        **changes,
    }


def write_recipe(content, **changes):
    recipe = make_recipe(**changes)
    folder = content / recipe["name"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.json").write_text(json.dumps(recipe))
    (content / "published.json").write_text(json.dumps(PUBLISHED))
    return content

"""Made-up spoken digits, and a recipe for them: speech in seconds."""

import numpy as np

from snukeras.datasets import spoken_digits
from snukeras.zoo import recipes
from snukeras.zoo.tasks import SpokenDigits
from snukeras.zoo.tasks.speech import speak


class Syllables(SpokenDigits):
    """Syllables that were made, in place of recordings."""

    def _load(self):
        splits = []
        for seed, count in enumerate((40, 20, 20)):
            random = np.random.default_rng(seed)
            digits = np.arange(count, dtype=np.uint8) % 10
            waves = [
                (random.uniform(0.2, 0.9) * speak(digit)[: random.integers(3000, 4000)])
                for digit in digits
            ]
            some = np.zeros(count, np.int32)
            splits.append(spoken_digits.Recordings(waves, digits, some.astype(str), some))
        return spoken_digits.Splits(*splits)


def make_recipe(**changes):
    return recipes.check(
        {
            "format": 1,
            "name": "tiny",
            "title": "A tiny network",
            "description": "For the tests.",
            "licence": "Apache-2.0",
            "task": "spoken_digits",
            "network": {
                "input": "sound",
                "input_shape": [None],
                "layers": [
                    {"class": "LogMel", "bands": 20, "frame_step": 160},
                    {"class": "BatchNormalization"},
                    {"class": "SNU", "units": 30, "threshold": 0.2, "return_sequences": True},
                    {"class": "Dense", "units": 10},
                    {"class": "GlobalAveragePooling1D"},
                    {"class": "Softmax"},
                ],
            },
            "optimizer": {"class": "Adam", "learning_rate": 0.01},
            "epochs": 3,
            "batch_size": 8,
            "seeds": [0],
            **changes,
        }
    )

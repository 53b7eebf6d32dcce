"""All-memristive networks: level-tuned neurons beside the classic winner-takes-all.

    python -m snukeras.experiments.level_tuned search run pictures
    python -m snukeras.experiments.level_tuned run --tasks overlap

Three tasks, each without labels, one spike a pixel or stream and step:

- patterns: four images of 20 of 100 pixels, a neuron each;
- overlap: three squares, each inside the next, of 9, 25 and 49 pixels;
- streams: two or three groups of correlated streams, of equal and of different sizes, among as many
  uncorrelated ones.

`search` chooses level and depression for each task and coupling, with seeds of its own; for streams
anew for each condition. The tasks then run with ten others. All of it is in
zoo/results/level_tuned; what is there already is not done again.
"""

import itertools
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from snukeras.datasets.streams import correlated_streams
from snukeras.experiments import results
from snukeras.zoo import _files

if TYPE_CHECKING:
    import keras

SEEDS = range(10)
SEARCH_SEEDS = range(100, 103)
COUPLINGS = ("level-tuned", "chain", "winner-takes-all", "uncoupled")
TITLES = {
    "level-tuned": "level-tuned",
    "chain": "level-tuned, chain",
    "winner-takes-all": "winner takes all",
    "uncoupled": "uncoupled",
}
SIDE = 10
PRESENTATION = 10  # steps
CHUNK = 100  # steps between two looks at the weights
LEARNED = 0.7  # agreement of a neuron's synapses from which on it has learned
INITIAL_PULSES = 20  # SET pulses to each synapse
TESTS = 40  # presentations of each pattern
RATE = 0.05  # spikes a step of each stream

# The controls run with what was chosen for the coupling that they vary.
SETTINGS_OF = {
    "level-tuned": "level-tuned",
    "chain": "level-tuned",
    "winner-takes-all": "winner-takes-all",
    "uncoupled": "winner-takes-all",
}


def pattern_images() -> np.ndarray:
    """Four images (4, 10, 10) of 20 pixels: two bars across, one down, one aslant."""
    images = np.zeros((4, SIDE, SIDE), "float32")
    images[0, 1:3] = images[1, 6:8] = 1
    images[2, :, 3:5] = 1
    index = np.arange(SIDE)
    images[3, index, index] = images[3, index, (index + 1) % SIDE] = 1
    return images


def square_images() -> np.ndarray:
    """Three squares (3, 10, 10) of 9, 25 and 49 pixels, each inside the next."""
    images = np.zeros((3, SIDE, SIDE), "float32")
    for image, (low, high) in zip(images, ((4, 7), (3, 8), (2, 9)), strict=True):
        image[low:high, low:high] = 1
    return images


def noisy(images: np.ndarray, noise: float, random: np.random.Generator) -> np.ndarray:
    """Images with each pixel that is on lost with probability `noise`, and as many others on."""
    on = images.sum(axis=-1, keepdims=True)
    chance = np.where(images > 0, 1.0 - noise, noise * on / (images.shape[-1] - on))
    return (random.random(images.shape) < chance).astype("float32")


def ascending(potentials: np.ndarray, share: float) -> list[float]:
    """Levels for things with these potentials, ascending: each above the thing before by a share.

    Things of one size are all of one level.
    """
    below = np.concatenate([[0.0], potentials[:-1]])
    if potentials.min() == potentials.max():
        below[:] = 0.0
    return [float(level) for level in below + share * (potentials - below)]


class Images:
    """Presentations of noisy images in random order, PRESENTATION steps each."""

    presentation = PRESENTATION
    window = 3  # steps that a write portion lasts: a pixel lost for a step still counts

    def __init__(self, images: np.ndarray, noise: float):
        self.sets = images.reshape(len(images), -1)
        self.noise = noise

    def training(self, steps: int, seed: int) -> np.ndarray:
        random = np.random.default_rng([seed, 1])
        order = random.integers(0, len(self.sets), steps // PRESENTATION)
        return noisy(np.repeat(self.sets[order][:, None], PRESENTATION, 1), self.noise, random)

    def test(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng([seed, 2])
        shown = np.repeat(np.arange(len(self.sets)), TESTS)
        steps = np.repeat(self.sets[shown][:, None], PRESENTATION, 1)
        return noisy(steps, self.noise, random), shown

    def levels(self, share: float, conductance: float) -> list[float]:
        return ascending(self.sets.sum(axis=1) * conductance, share)


class Streams:
    """Groups of correlated streams among as many uncorrelated ones."""

    presentation = CHUNK
    window = 1

    def __init__(self, sizes: Sequence[int], correlation: float):
        self.sizes, self.correlation = [*sizes], correlation
        groups = np.repeat(np.arange(len(sizes)), sizes)
        self.sets = np.zeros((len(sizes), 2 * len(groups)), "float32")
        self.sets[groups, np.arange(len(groups))] = 1
        # A stream's chance of a spike when the reference process of its group spikes, and when not.
        root = np.sqrt(correlation)
        self.joined, self.apart = RATE + root * (1.0 - RATE), RATE * (1.0 - root)

    def training(self, steps: int, seed: int) -> np.ndarray:
        spikes = correlated_streams(
            self.sizes, self.correlation, sum(self.sizes), RATE, steps, seed
        )
        return spikes.reshape(-1, CHUNK, spikes.shape[1])

    def test(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Moments at which the reference process of one group spikes and no other does."""
        random = np.random.default_rng([seed, 2])
        shown = np.repeat(np.arange(len(self.sets)), TESTS)
        correlated = self.sets.sum(axis=0) > 0
        chance = np.where(correlated, self.apart, RATE)
        chance = np.where(self.sets[shown] > 0, self.joined, chance)
        # Each moment again and again, since a neuron needs several to fire.
        chance = np.repeat(chance[:, None], PRESENTATION, 1)
        return (random.random(chance.shape) < chance).astype("float32"), shown

    def levels(self, share: float, conductance: float) -> list[float]:
        # Of a group, so many streams spike at a time.
        return ascending(self.sets.sum(axis=1) * self.joined * conductance, share)


_STREAMS: list[dict[str, Any]] = [
    {"sizes": sizes, "correlation": correlation}
    for sizes, correlations in (
        ([50, 50], (0.2, 0.4, 0.6, 0.9)),
        ([30, 70], (0.2, 0.4, 0.6, 0.9)),
        ([50, 50, 50], (0.4, 0.9)),
        ([25, 50, 75], (0.4, 0.9)),
    )
    for correlation in correlations
]
TASKS: dict[str, dict[str, Any]] = {
    "patterns": {
        "make": lambda noise: Images(pattern_images(), noise),
        "conditions": [{"noise": noise} for noise in (0.0, 0.1, 0.2, 0.3)],
        "searched": [{"noise": 0.2}],
        "steps": 4000,
        "level": (0.4, 0.55, 0.7),
        "depression": (0.1, 0.3, 1.0),
    },
    "overlap": {
        "make": lambda noise: Images(square_images(), noise),
        "conditions": [{"noise": noise} for noise in (0.0, 0.1, 0.2)],
        "searched": [{"noise": 0.1}],
        "steps": 4000,
        "level": (0.4, 0.55, 0.7),
        "depression": (0.1, 0.3, 1.0),
    },
    "streams": {
        "make": Streams,
        "conditions": _STREAMS,
        "searched": _STREAMS,
        "controlled": [s for s in _STREAMS if len(s["sizes"]) == 2 and s["correlation"] == 0.6],
        "steps": 12000,
        "level": (0.4, 0.5, 0.6),
        "depression": (0.05, 0.1, 0.2, 0.4),
    },
}


def network(task: Any, coupling: str, level: float, depression: float, seed: int) -> "keras.Model":
    """The network for a task: as many neurons as there are things to learn.

    Args:
        task: `Images` or `Streams`.
        coupling: One of COUPLINGS.
        level: Share of the input that belongs to a level, see `levels` of the task.
        depression: As for `PhaseChangeSynapses`.
        seed: Of devices and learning.
    """
    import keras

    from snukeras import layers
    from snukeras.pcm import NandakumarPCM

    units, features = task.sets.shape
    # Levels in uS follow from what a device conducts when the network starts, on average.
    conductance = INITIAL_PULSES * NandakumarPCM().granularity(INITIAL_PULSES)
    levels = task.levels(level, conductance)
    chosen = {
        "level-tuned": lambda: layers.LevelTuned(levels),
        "chain": lambda: layers.LevelTuned(levels, chain=True),
        "winner-takes-all": lambda: layers.WinnerTakesAll(levels[0]),
        "uncoupled": lambda: layers.Uncoupled(levels[0]),
    }[coupling]()
    layer = layers.AllMemristive(
        units,
        chosen,
        synapses=layers.PhaseChangeSynapses(
            units,
            initial_pulses=INITIAL_PULSES,
            depression=depression,
            window=task.window,
            seed=seed,
        ),
        neurons=layers.PhaseChangeNeurons(units, pulse_input=levels[0] / 2.0, seed=seed),
        return_potentials=True,
        seed=seed,
        name="memristive",
    )
    inputs = keras.Input((None, features))
    model = keras.Model(inputs, layer(inputs))
    model.compile(jit_compile=True)
    return model


def agreement(conductances: np.ndarray, members: np.ndarray) -> float:
    """Intersection over union of a set of inputs and the inputs with conductive synapses.

    A synapse counts as conductive above the middle of the means within and outside the set.
    """
    inside = members > 0
    low, high = conductances[~inside].mean(), conductances[inside].mean()
    if high <= low:
        return 0.0
    conductive = conductances > (low + high) / 2.0
    return float((conductive & inside).sum() / (conductive | inside).sum())


def assign(conductances: np.ndarray, sets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The neuron of each set, one each, and how well its synapses agree with the set."""
    from scipy.optimize import linear_sum_assignment

    table = np.array(
        [[agreement(conductances[:, k], members) for k in range(len(sets))] for members in sets]
    )
    rows, neurons = linear_sum_assignment(-table)
    return neurons, table[rows, neurons]


def train(
    model: "keras.Model", task: Any, steps: int, seed: int, test: bool = True
) -> dict[str, Any]:
    """Train one network and describe what it has learned.

    Args:
        model: Made by `network`.
        task: `Images` or `Streams`.
        steps: Steps to learn from.
        seed: Of the inputs.
        test: Whether to show it new inputs in the end.
    """
    layer = model.get_layer("memristive")
    x = task.training(steps, seed)
    samples = CHUNK // task.presentation
    learned_at: int | None = None
    for start in range(0, len(x), samples):
        model.train_on_batch(x[start : start + samples])
        g = np.asarray(layer.synapses.conductance)
        whole = bool((assign(g, task.sets)[1] >= LEARNED).all())
        if not whole:
            learned_at = None
        elif learned_at is None:
            learned_at = start * task.presentation + CHUNK
            events_then = sum(layer.programming_events().values())
    neurons, agreements = assign(g, task.sets)
    inside = [g[members > 0, k].mean() for members, k in zip(task.sets, neurons, strict=True)]
    outside = [g[members == 0, k].mean() for members, k in zip(task.sets, neurons, strict=True)]
    result = {
        "seed": seed,
        "learned": int((agreements >= LEARNED).sum()),
        "agreement": float(agreements.mean()),
        "steps_to_learn": learned_at,
        "events_to_learn": None if learned_at is None else events_then,
        "inside_uS": float(np.mean(inside)),
        "outside_uS": float(np.mean(outside)),
        "events": layer.programming_events(),
    }
    return result if not test else {**result, "recognised": recognised(model, task, neurons, seed)}


def recognised(model: "keras.Model", task: Any, neurons: np.ndarray, seed: int) -> float:
    """Share of new presentations at which the right neuron, and no other, fires."""
    x, shown = task.test(seed)
    spikes = np.asarray(model.predict(x, batch_size=len(x), verbose=0)[0]).sum(axis=1) > 0
    return float((spikes == (np.arange(spikes.shape[1]) == neurons[shown][:, None])).all(1).mean())


def runs(
    task: Any,
    coupling: str,
    level: float,
    depression: float,
    steps: int,
    seeds: Iterable[int],
    test: bool = True,
) -> list[dict[str, Any]]:
    """Train one network a seed; they differ in state alone, so they share one compiled model."""
    model = None
    found = []
    for seed in seeds:
        fresh = network(task, coupling, level, depression, seed)
        model = fresh if model is None else model
        model.set_weights(fresh.get_weights())
        found.append(train(model, task, steps, seed, test))
    return found


def search(name: str, folder: Path) -> list[dict[str, Any]]:
    """Choose level and depression of each coupling for a task, on seeds of its own.

    The most things learned count, then the agreement of the synapses.
    """
    definition = TASKS[name]

    def tried(coupling: str, condition: dict[str, Any], seeds: list[int]) -> dict[str, Any]:
        task = definition["make"](**condition)
        trials = []
        for level, depression in itertools.product(definition["level"], definition["depression"]):
            found = runs(task, coupling, level, depression, definition["steps"], seeds, test=False)
            trial = {"level": level, "depression": depression}
            for key in ("learned", "agreement"):
                trial[key] = float(np.mean([run[key] for run in found]))
            trial["events"] = float(np.mean([sum(run["events"].values()) for run in found]))
            trials.append(trial)
        best = max(trials, key=lambda t: (t["learned"], t["agreement"]))
        return {"chosen": {key: best[key] for key in ("level", "depression")}, "tried": trials}

    cases = [
        {"coupling": coupling, "condition": condition, "seeds": [*SEARCH_SEEDS]}
        for condition in definition["searched"]
        for coupling in sorted(set(SETTINGS_OF.values()))
    ]
    return results.gather(folder / f"search_{name}.json", cases, tried)


def settings(folder: Path, name: str, coupling: str, condition: dict[str, Any]) -> dict[str, float]:
    """Level and depression that `search` has chosen for a coupling and condition."""
    found = [
        search for search in _files.read_json(folder / f"search_{name}.json")["runs"]
        if search["coupling"] == SETTINGS_OF[coupling]
    ]  # fmt: skip
    own = [search for search in found if search["condition"] == condition]
    # A task that was searched at one condition has one choice for all.
    return dict((own or found)[0]["chosen"])


def couplings(name: str, condition: dict[str, Any]) -> list[str]:
    """The couplings that run at a condition: controls do not run everywhere."""
    controlled = TASKS[name].get("controlled", [condition])
    return [c for c in COUPLINGS if SETTINGS_OF[c] == c or condition in controlled]


def experiment(name: str, folder: Path, seeds: Sequence[int] = SEEDS) -> list[dict[str, Any]]:
    """Run a task with every coupling, condition and seed; a run that was killed goes on.

    Args:
        name: "patterns", "overlap" or "streams".
        folder: Where the search's result is, and where the result goes.
        seeds: Seeds of inputs, devices and learning.

    Returns:
        The figures of each coupling and condition, by seed.
    """
    definition = TASKS[name]
    path = folder / f"{name}.json"
    known: list[dict[str, Any]] = _files.read_json(path)["runs"] if path.exists() else []
    for condition in definition["conditions"]:
        task = definition["make"](**condition)
        for coupling in couplings(name, condition):
            chosen = settings(folder, name, coupling, condition)
            run = {
                "coupling": coupling,
                "condition": condition,
                "settings": chosen,
                "things": len(task.sets),
                "steps": definition["steps"],
            }
            done: list[dict[str, Any]] = next(
                (old["seeds"] for old in known if run.items() <= old.items()), []
            )
            missing = [s for s in seeds if s not in [seed["seed"] for seed in done]]
            if not missing:
                continue
            found = runs(
                task, coupling, chosen["level"], chosen["depression"], run["steps"], missing
            )
            # What was run with other settings goes.
            case = (coupling, condition)
            known = [old for old in known if (old["coupling"], old["condition"]) != case]
            known.append({**run, "seeds": sorted([*done, *found], key=lambda s: s["seed"])})
            _files.write_json(path, {"runs": known})
            print(name, coupling, condition, [seed["learned"] for seed in found], flush=True)
    return known


def table(part: str = "patterns", content: Path | str | None = None) -> str:
    """Return the table of a task as Markdown.

    Args:
        part: "patterns", "overlap" or "streams".
        content: As for `snukeras.zoo.presets.content_folder`.
    """
    path = results.folder("level_tuned", content) / f"{part}.json"
    known = _files.read_json(path)["runs"]
    conditions = TASKS[part]["conditions"]
    keys = [*conditions[0]]
    lines = [
        f"| {' | '.join(keys)} | coupling | learned | recognised "
        "| steps to learn all | conductance inside / outside, uS | synapse pulses "
        "| neuron pulses |",
        "|" + "---|" * (len(keys) + 7),
    ]
    for condition in conditions:
        for coupling in couplings(part, condition):
            run = next(
                r for r in known
                if r["coupling"] == coupling and r["condition"] == condition
            )  # fmt: skip
            seeds = run["seeds"]
            learned = results.spread([seed["learned"] for seed in seeds], ".1f")
            told = results.spread([100.0 * seed["recognised"] for seed in seeds], ".0f")
            times = [s["steps_to_learn"] for s in seeds if s["steps_to_learn"] is not None]
            share = f"{len(times)} of {len(seeds)} runs"
            when = f"{np.mean(times):.0f} ({share})" if times else f"never ({share})"
            inside = np.mean([seed["inside_uS"] for seed in seeds])
            outside = np.mean([seed["outside_uS"] for seed in seeds])
            events = {
                part: np.mean(
                    [seed["events"][f"{part}_set"] + seed["events"][f"{part}_reset"]
                     for seed in seeds]
                )
                for part in ("synapse", "neuron")
            }  # fmt: skip
            values = [str(condition[key]).strip("[]") for key in keys]
            lines.append(
                f"| {' | '.join(values)} | {TITLES[coupling]} "
                f"| {learned} of {run['things']} | {told} % | {when} "
                f"| {inside:.1f} / {outside:.1f} | {events['synapse']:,.0f} "
                f"| {events['neuron']:,.0f} |"
            )
    return "\n".join(lines) + "\n"


@results.reported
def main(argv: list[str] | None = None) -> int:
    """Run from the command line; 0 if all went well."""
    parser = results.parser(
        "level_tuned",
        "Unsupervised learning with level-tuned neurons and with winner-takes-all.",
        ["search", "run", "pictures"],
        SEEDS,
    )
    parser.add_argument("--tasks", nargs="+", choices=[*TASKS], default=[*TASKS])
    arguments = parser.parse_args(argv)
    for what in arguments.what:
        if what == "pictures":
            from snukeras.experiments.level_tuned_pictures import draw

            draw(arguments.results, arguments.tasks)
            continue
        for name in arguments.tasks:
            if what == "search":
                search(name, arguments.results)
            else:
                experiment(name, arguments.results, arguments.seeds)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Types of what the files of the zoo hold; zoo/README.md specifies them."""

from typing import Literal, NotRequired, TypedDict

from snukeras._files import JsonObject, JsonValue
from snukeras.zoo.published import Published

Split = Literal["valid", "test"]
MEASURED: tuple[Split, ...] = ("valid", "test")


class Figure(TypedDict):
    """A figure over the seeds; one seed has no deviation."""

    mean: float
    deviation: float | None


class MatrixCosts(TypedDict):
    """What was counted of a matrix; `active_inputs` is the share of inputs that were not zero."""

    name: str
    rows: NotRequired[int]
    columns: NotRequired[int]
    weights: int
    macs_per_step: float
    active_inputs: float
    binary: bool


class Costs(TypedDict):
    """What was counted of a network; see `snukeras.zoo.publishing.costs.counted`."""

    samples: int
    steps_per_sample: float
    spikes_per_sample: float | None
    macs_per_step: int
    additions_per_step: int
    multiplications_per_step: int
    pcm_devices: int
    matrices: list[MatrixCosts]


class CostsOnData(Costs):
    """The costs of a network, and the data that they were counted on."""

    data: str


class OfChips(TypedDict):
    """A figure over chips."""

    mean: float
    std: float
    min: float
    max: float


class OnChips(TypedDict):
    """The test figure of a preset's weights on simulated chips, by the time after programming."""

    weights_sha256: str
    device: str
    chips: int
    compensation: str
    times: dict[str, OfChips]


class Data(TypedDict):
    """The data set of a task."""

    name: str
    sha256: str
    licence: str


class Summary(TypedDict):
    """The figures of a model; `test` is left out where the test split was not measured."""

    valid: Figure
    test: NotRequired[Figure]


class OfSeed(TypedDict):
    """What commands and cards use of the result of a seed (`snukeras.zoo.training.train_seed`)."""

    seed: int
    valid: float
    test: NotRequired[float]
    epoch: int
    epochs_trained: int
    seconds: float


class Layers(TypedDict):
    """The network of a recipe."""

    layers: list[JsonObject]


class OfRecipe(TypedDict):
    """What commands and cards use of a recipe that results keep."""

    network: Layers
    epochs: int
    batch_size: int
    patience: int | None
    padding: list[int] | None
    start: NotRequired[JsonObject | None]
    teacher: NotRequired[JsonObject | None]
    loss: NotRequired[JsonObject]
    optimizer: NotRequired[JsonObject]
    schedule: NotRequired[JsonObject | None]
    averaging: NotRequired[JsonObject | None]
    constraint: NotRequired[JsonObject | None]
    noise: NotRequired[JsonObject | None]
    data: NotRequired[JsonObject]


class Results(Summary):
    """results/NAME.json: the figures of a model's seeds, with all that produced them.

    `seeds` hold what `snukeras.zoo.training.train_seed` returns, of which readers use `OfSeed`;
    `recipe` is a recipe without its published figure, of which they use `OfRecipe`.
    """

    format: int
    name: str
    task: str
    metric: str
    unit: str
    lower_is_better: NotRequired[bool]
    best_seed: int
    parameters: int
    seeds: list[JsonObject]
    recipe: JsonObject
    data: Data
    versions: dict[str, str]
    costs: NotRequired[CostsOnData]
    chips: NotRequired[OnChips]


class Pinned(TypedDict):
    """What a file has to be."""

    sha256: str
    bytes: int


class Preset(TypedDict):
    """preset.json: what a pretrained model is, and its files."""

    format: int
    name: str
    title: str
    description: str
    licence: str
    task: str
    network: str
    parameters: int
    metric: str
    unit: str
    seed: int
    valid: float
    test: float
    files: dict[str, Pinned]


class Info(Preset):
    """A preset with its recipe, its results and its published figure, None where it has none."""

    recipe: JsonObject | None
    results: Results | None
    published: Published | None


class Outcome(TypedDict):
    """What came of a trial on the validation split; None where it diverged."""

    valid: float | None
    epoch: int | None
    epochs_trained: int | None
    seconds: float | None


class Trial(Outcome):
    """Settings of a recipe that were tried, by their places, and what came of them."""

    settings: dict[str, JsonValue]
    seed: int
    identity: str
    recipe: JsonObject


class Trials(TypedDict):
    """results/search/NAME.json: all trials of a model."""

    name: str
    task: str
    metric: str
    unit: str
    lower_is_better: bool
    trials: list[Trial]
    versions: NotRequired[dict[str, str]]

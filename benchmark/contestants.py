"""Who takes part, and which process runs whom. Nothing here imports a framework."""

import importlib.metadata
import importlib.util
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any


@dataclass(frozen=True)
class Contestant:
    """One way to train and run a network.

    Attributes:
        framework: The process that runs it: "tensorflow", "torch" or "jax"; "keras-torch" or
            "keras-jax" for Keras with that backend.
        library: The library whose units it uses, by the name one imports.
        unit: The unit; " recurrent" at its end means a recurrent kernel; "products" are the bare
            matrix products, the floor.
        jit_compile: Keras's argument of this name; None where there is no such choice.
        precision: "float32" or "mixed_bfloat16".
    """

    framework: str
    library: str
    unit: str
    jit_compile: bool | None = None
    precision: str = "float32"

    @property
    def recurrent(self) -> bool:
        """Whether the unit has a recurrent kernel."""
        return self.unit.endswith(" recurrent")

    @property
    def kind(self) -> str:
        """The unit without " recurrent"."""
        return self.unit.removesuffix(" recurrent")

    @property
    def is_floor(self) -> bool:
        """Whether it does the bare matrix products alone."""
        return self.kind == "products"

    @property
    def name(self) -> str:
        """The name in tables, such as "snukeras SNU recurrent, jit, bfloat16"."""
        marks = [label(self.library, self.unit, self.framework)]
        marks += ["jit"] if self.jit_compile else []
        marks += ["bfloat16"] if self.precision == "mixed_bfloat16" else []
        return ", ".join(marks)

    def to_json(self) -> dict[str, Any]:
        """Return the fields, for a request to a worker and for results."""
        return asdict(self)


def label(library: str, unit: str, framework: str) -> str:
    """Return what a contestant is called without its settings, such as "snukeras SNU on jax"."""
    backend = framework.removeprefix("keras-")
    return f"{library} {unit}" + ("" if backend == framework else f" on {backend}")


def _in_keras() -> list[Contestant]:
    units = [
        *(("snukeras", unit) for unit in ("SNU", "SSNU", "SNU recurrent", "SSNU recurrent")),
        # Dense layers of the same size, without any recurrence: what a step costs around the units.
        *(("keras", unit) for unit in ("LSTM", "GRU", "SimpleRNN", "Dense")),
        *(("tensorflow", unit) for unit in ("products", "products recurrent")),
    ]
    return [
        Contestant("tensorflow", library, unit, jit, precision)
        for library, unit in units
        for precision in ("float32", "mixed_bfloat16")
        for jit in (False, True)
    ]


CONTESTANTS = (
    *_in_keras(),
    *(
        Contestant(f"keras-{backend}", library, unit)
        for backend in ("jax", "torch")
        for library, unit in (
            ("snukeras", "SNU"),
            ("snukeras", "SSNU"),
            ("snukeras", "SNU recurrent"),
            ("keras", "LSTM"),
        )
    ),
    Contestant("torch", "torch", "LSTM"),
    Contestant("torch", "torch", "products"),
    Contestant("torch", "torch", "products recurrent"),
    Contestant("torch", "snntorch", "Leaky"),
    Contestant("torch", "spikingjelly", "LIFNode"),
    Contestant("torch", "norse", "LIFBoxCell"),
    Contestant("jax", "spyx", "LIF"),
    Contestant("jax", "jax", "SNU by hand"),
)

# A step of inference, and what it is made of, each measured for itself: to call TensorFlow, the
# products, the layers without their products.
PROFILE = tuple(
    Contestant("tensorflow", library, unit, jit)
    for jit in (False, True)
    for library, unit in (
        ("snukeras", "SNU"),
        ("tensorflow", "call"),
        ("tensorflow", "products"),
        ("tensorflow", "scans"),
    )
)

# The first of these that was measured is what ratios refer to.
BASES = ("torch LSTM", "keras LSTM")

# Who is measured on a GPU, where nobody is named: minutes on it are dear.
ON_GPU = ["snukeras SNU*", "keras LSTM*", "torch LSTM", "spikingjelly*", "spyx*"]

# What each library needs beside itself to be measured here.
_NEEDS = {
    "keras": ("tensorflow",),
    "snukeras": ("tensorflow",),
    "snntorch": ("torch",),
    "spikingjelly": ("torch",),
    "norse": ("torch",),
    "spyx": ("jax", "flax", "optax"),
    "jax": ("optax",),
}


def installed(library: str, framework: str = "") -> bool:
    """Return whether a library and what it needs can be imported; import nothing."""
    needs = _NEEDS.get(library, ())
    if framework.startswith("keras-"):
        needs = (framework.removeprefix("keras-"),)
    return all(importlib.util.find_spec(name) is not None for name in (library, *needs))


def versions() -> dict[str, str]:
    """Return the versions of the libraries that take part and are installed."""
    import snukeras

    found = {"snukeras": snukeras.__version__}
    libraries = {c.library for c in CONTESTANTS} | {"numpy"}
    for library in sorted(libraries - {"snukeras"}):
        if installed(library):
            try:
                found[library] = importlib.metadata.version(library)
            except importlib.metadata.PackageNotFoundError:
                # TensorFlow is distributed under several names.
                homes = importlib.metadata.packages_distributions().get(library, [])
                found[library] = importlib.metadata.version(homes[0]) if homes else "unknown"
    return found


def choose(patterns: list[str] | None = None) -> list[Contestant]:
    """Return the installed contestants whose names match one of the patterns (all by default).

    Raises:
        ValueError: A pattern matches nobody, installed or not.
    """
    for pattern in patterns or []:
        if not any(fnmatchcase(c.name, pattern) for c in CONTESTANTS):
            names = ", ".join(repr(c.name) for c in CONTESTANTS)
            raise ValueError(
                "Argument `contestants` must hold names or patterns such as 'snukeras*'. "
                f"Received: {pattern!r}, which matches none of {names}"
            )
    return [
        c
        for c in CONTESTANTS
        if installed(c.library, c.framework)
        and (not patterns or any(fnmatchcase(c.name, pattern) for pattern in patterns))
    ]

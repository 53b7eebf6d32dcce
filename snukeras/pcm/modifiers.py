"""What happens to weights in training steps, so that a network learns to bear its devices."""

import dataclasses
import math
from typing import Literal

import keras
from keras import ops

from snukeras import _arguments
from snukeras._random import normal_like, quick_uniform
from snukeras._types import Array, Config, Tensor
from snukeras.pcm.converters import converted
from snukeras.pcm.devices import GenericPCM, InferencePCM
from snukeras.pcm.pairs import DifferentialPair

KINDS = ("additive", "multiplicative", "programming", "pcm", "drop_connect", "dorefa")


@keras.saving.register_keras_serializable(package="snukeras")
@dataclasses.dataclass(frozen=True)
class WeightModifier:
    """Changes the weights of each training step afresh; gradients are taken at the changed ones.

    The weights themselves stay as they are, and so does everything outside of training. With
    weights w as shares of the largest of their column, and s for `strength`:

        "additive"        w + s N(0, 1)
        "multiplicative"  w (1 + s N(0, 1))
        "programming"     w + s times the programming noise of the devices
        "pcm"             w of devices programmed and read once, s between w (0) and these (1);
                          with a `time`, after drift that a factor for each column corrects,
                          on tiles behind the converter
        "drop_connect"    0 with probability s, else w
        "dorefa"          w rounded to 2**s - 1 values

    Attributes:
        kind: One of these.
        strength: s.
        time: of the reading of "pcm", seconds as in InferencePCM; a pair of times: each step has
            another between them, evenly spread over their logarithm.

    Raises:
        ValueError: an unknown kind, a strength that it does not have, or a time for another kind.
    """

    kind: Literal["additive", "multiplicative", "programming", "pcm", "drop_connect", "dorefa"]
    strength: float
    time: float | tuple[float, float] = 0.0

    def __post_init__(self) -> None:
        _arguments.choice("kind", self.kind, KINDS)
        strength = _arguments.number("strength", self.strength, minimum=0.0)
        if self.kind == "drop_connect" and strength >= 1.0:
            raise ValueError(
                f"`strength` must be below 1, a probability to drop. Received: {strength:g}"
            )
        if self.kind == "dorefa" and (strength != int(strength) or strength < 2):
            raise ValueError(
                f"`strength` must be an integer of at least 2, the bits of a weight. "
                f"Received: {strength:g}"
            )
        if isinstance(self.time, list | tuple):
            self._check_times(self.time)
        else:
            _arguments.number("time", self.time, minimum=0.0)
        if self.time and self.kind != "pcm":
            raise ValueError(
                f"`time` must be 0 for {self.kind!r}: only the devices of 'pcm' drift. "
                f"Received: {self.time!r}"
            )

    def _check_times(self, times: list[float] | tuple[float, ...]) -> None:
        found = tuple(_arguments.number("time", time, above=0.0) for time in times)
        if len(found) != 2 or found[0] >= found[1]:
            raise ValueError(
                f"`time` must be a number, or two that rise. Received: {list(times)!r}"
            )
        # A file has a list of them.
        object.__setattr__(self, "time", found)

    def __call__(
        self,
        share: Tensor,
        seed: keras.random.SeedGenerator,
        pair: DifferentialPair,
        device: InferencePCM | None = None,
    ) -> Tensor:
        """Return changed weights, their drift corrected.

        Args:
            share: weights as shares of the largest of their column, (rows, columns).
            seed: of the noise.
            pair: what weights are held by.
            device: whose noise "programming" and "pcm" take; default GenericPCM.
        """
        changed, factor = self.in_front(share, seed, pair, device)
        return changed if factor is None else changed * factor

    def in_front(
        self,
        share: Tensor,
        seed: keras.random.SeedGenerator,
        pair: DifferentialPair,
        device: InferencePCM | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Return changed weights as they stand in front of a converter, and what follows behind.

        Arguments are those of a call. Drift makes currents small, so that a converter tells fewer
        of them apart; the factors (1, columns) that correct it act on digital numbers. None: no
        factor.
        """
        if self.kind in ("programming", "pcm"):
            return self._devices(share, seed, pair, device)
        return self._formula(share, seed), None

    def _formula(self, share: Tensor, seed: keras.random.SeedGenerator) -> Tensor:
        """Return weights changed by a formula, without devices."""
        s = self.strength
        if self.kind == "dorefa":
            return converted(share, int(s))
        if self.kind == "drop_connect":
            kept = quick_uniform(tuple(share.shape), seed) >= s
            return share * ops.cast(kept, share.dtype)
        if self.kind == "multiplicative":
            return share * (1.0 + s * normal_like(share, seed))
        return share + s * normal_like(share, seed)

    def _devices(
        self,
        share: Tensor,
        seed: keras.random.SeedGenerator,
        pair: DifferentialPair,
        device: InferencePCM | None,
    ) -> tuple[Tensor, Tensor | None]:
        """Return weights as devices hold them, and the factors that correct their drift."""
        s = self.strength
        device = GenericPCM(pair.g_max) if device is None else device
        still = ops.stop_gradient(share)
        g = ops.stack([ops.relu(still), ops.relu(-still)]) * pair.span + pair.g_min
        if self.kind == "programming":
            noise = device.programming_std(g) * device.programming_noise * normal_like(g, seed)
            return share + s * ops.stop_gradient((noise[0] - noise[1]) / pair.span), None
        held = device.read(device.program(g, seed=seed), self._drawn_time(seed), seed=seed)
        read = still + s * ((held[0] - held[1]) / pair.span - still)
        if not self.time:
            return share + ops.stop_gradient(read - still), None
        # As compensation for each column has it: what |weights| sum up to, then and now.
        then, now = (ops.sum(ops.abs(w), axis=0, keepdims=True) for w in (still, read))
        factor = ops.stop_gradient(then / ops.maximum(now, 1e-6))
        # Behind the factor, the gradient is that of the weights themselves.
        return share / factor + ops.stop_gradient(read - still / factor), factor

    def _drawn_time(self, seed: keras.random.SeedGenerator) -> Array:
        if not isinstance(self.time, tuple):
            return self.time
        low, high = (math.log(time) for time in self.time)
        return ops.exp(low + (high - low) * keras.random.uniform((), seed=seed))

    def get_config(self) -> Config:
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: Config) -> "WeightModifier":
        return cls(**config)

"""Noise in the loops of JAX: each step of a recurrent layer draws random numbers of its own.

JAX compiles the steps of a loop into one function, and what a generator counts in there stays in
there. So the loop carries a number with its states, and the generators of each step start from the
state before the loop and that number.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from snukeras._random import draw, of_step
from snukeras._types import Nested, Tensor

# These add a fast path of a GPU to the loop of all layers, which tiles do not take, and hand on the
# states that they know alone.
_WITH_FAST_PATHS = (keras.layers.GRU.inner_loop, keras.layers.LSTM.inner_loop)


class NumberedLoop:
    """Stands in for the `inner_loop` of a recurrent layer.

    Args:
        layer: the layer.
        generators: of the noise of its products.
    """

    def __init__(
        self, layer: keras.layers.RNN, generators: Sequence[keras.random.SeedGenerator]
    ) -> None:
        self.layer, self.generators = layer, list(generators)

    def __call__(
        self,
        sequences: Tensor,
        initial_state: Nested,
        mask: Tensor | None,
        training: bool = False,
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Run all steps; arguments and results are those of the loop of Keras."""
        states = initial_state if keras.tree.is_nested(initial_state) else [initial_state]
        # Keras's loop takes the first state, or that of the last of several cells, for the output.
        several = keras.tree.is_nested(states[0])
        # A number for each sample: those that are masked keep theirs.
        number = ops.zeros((sequences.shape[0], 1), "int32")
        begin = [[number], *states] if several else [*states, number]
        seeds = [draw(generator) for generator in self.generators]
        after = [ops.convert_to_tensor(generator.state) for generator in self.generators]
        cell = self.layer.cell
        own, replaced = cell.call, vars(cell).get("call")

        def call(inputs: Tensor, states: Nested, *args: Any, **kwargs: Any) -> tuple[Tensor, Any]:
            (count,), before = (states[0], states[1:]) if several else (states[-1:], states[:-1])
            for generator, seed in zip(self.generators, seeds, strict=True):
                generator.state.assign(of_step(seed, ops.sum(count)))
            outputs, new = own(inputs, list(before), *args, **kwargs)
            new = new if keras.tree.is_nested(new) else [new]
            return outputs, [[count + 1], *new] if several else [*new, count + 1]

        cell.call = call
        try:
            loop = type(self.layer).inner_loop
            if loop in _WITH_FAST_PATHS:
                loop, mask = keras.layers.RNN.inner_loop, keras.tree.flatten(mask)[0]
            last, outputs, found = loop(self.layer, sequences, begin, mask, training=training)
        finally:
            if replaced is None:
                del cell.call
            else:
                cell.call = replaced
            for generator, state in zip(self.generators, after, strict=True):
                generator.state.assign(state)
        return last, outputs, list(found[1:] if several else found[:-1])

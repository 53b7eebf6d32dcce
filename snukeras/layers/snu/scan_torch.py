"""The scan over time of SNU and SSNU on torch: loops of few operations, and a backward loop.

An operation of torch costs microseconds whatever it computes, so loops have few and write into
sequences that are allocated once. `folded_torch.py` is the backward loop of most units: what does
not depend on the step after is computed for many steps at once. The one here takes any unit.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import torch

from snukeras.activations import Step
from snukeras.layers.snu.dynamics import (
    Call,
    Dynamics,
    Source,
    derivative_from_value,
    started,
)
from snukeras.layers.snu.folded_torch import (
    folds,
    gate,
    gradients,
    send_back,
    shares,
    to_kernel,
)


def scan(
    dynamics: Dynamics,
    drive: torch.Tensor,
    call: Call,
    keep: bool = True,
    membranes: bool = False,
    source: Source | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Run all steps; see `snukeras.layers.snu.scan.scan`.

    Args:
        dynamics, drive, call, membranes: as there.
        keep, source: of no use here. torch knows whether gradients are wanted, and what the drive
            is made of.
    """
    given = (drive, *call.differentiable)
    if torch.compiler.is_exporting():
        # Keras's export for torch: its graph takes no no_grad.
        outputs, last, states = run(dynamics, drive, call)
    elif torch.is_grad_enabled() and any(each.requires_grad for each in given):
        outputs, last, states = _Scan.apply(dynamics, call.dropout, call.mask, *given)
    else:
        outputs, last, states, _ = _forward(dynamics, drive, call, membranes)
    return outputs, last, states if membranes else None


def _call(
    given: Sequence[torch.Tensor], dropout: torch.Tensor | None, mask: torch.Tensor | None
) -> Call:
    """Put a call together again from its tensors, the first of which is the drive."""
    _, decay, threshold, kernel, y, s = given
    return Call(decay, threshold, kernel, y, s, dropout, mask, None)


class _Scan(torch.autograd.Function):
    """The scan as a function with a backward pass of its own."""

    @staticmethod
    def forward(
        ctx: Any,
        dynamics: Dynamics,
        dropout: torch.Tensor | None,
        mask: torch.Tensor | None,
        *given: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        call = _call(given, dropout, mask)
        outputs, last, states, arguments = _forward(dynamics, given[0], call, True)
        ctx.dynamics, ctx.dropout, ctx.mask = dynamics, dropout, mask
        ctx.set_materialize_grads(False)
        # The drive is for second derivatives alone.
        ctx.save_for_backward(outputs, states, arguments, *given)
        return outputs, last, states

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        outputs, states, arguments, *given = ctx.saved_tensors
        call = _call(given, ctx.dropout, ctx.mask)
        if torch.is_grad_enabled():  # Gradients of these gradients will be asked for.
            results = run(ctx.dynamics, given[0], call)
            found = _differentiable_gradients(results, given, upstream)
        else:
            # Half precision may have rounded the outputs, but for those that are 0 and 1.
            if outputs.dtype == states.dtype or isinstance(ctx.dynamics.output, Step):
                values = outputs.to(states.dtype)
            else:
                values = ctx.dynamics.output.value(states - call.threshold)
            to_results = [None if each is None else each.to(states.dtype) for each in upstream]
            if folds(ctx.dynamics, call):
                found = gradients(ctx.dynamics, call, values, states, *to_results)
            else:
                found = _Backward(ctx.dynamics, call, values, states, arguments).run(*to_results)
            to_drive = found[0]
            assert to_drive is not None
            found[0] = to_drive.to(given[0].dtype)
        return (None, None, None, *found)


def _differentiable_gradients(
    results: Sequence[torch.Tensor],
    given: Sequence[torch.Tensor],
    upstream: Sequence[torch.Tensor | None],
) -> list[torch.Tensor | None]:
    pairs = [(r, u) for r, u in zip(results, upstream, strict=True) if u is not None]
    wanted = [each for each in given if each.requires_grad]
    found = iter(
        torch.autograd.grad(
            [r for r, _ in pairs],
            wanted,
            [u for _, u in pairs],
            create_graph=True,
            allow_unused=True,
        )
    )
    return [next(found) if each.requires_grad else None for each in given]


def run(
    dynamics: Dynamics, drive: torch.Tensor, call: Call
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Run the equations step by step; torch can differentiate this any number of times."""
    y, s = call.y, call.s
    outputs, states = [], []
    for t, z in enumerate(drive.unbind(1)):
        a = z.to(s.dtype) + call.decay * s * (1.0 - gate(dynamics, y))
        if dynamics.recurrent:
            a = a + _fed_back(call, y)
        new_s = dynamics.state_activation(a)
        z = new_s - call.threshold
        h = dynamics.output
        if isinstance(h, Step) and torch.compiler.is_exporting():
            new_y = (z > 0).to(z.dtype)  # torch.export takes no gradients of one's own
        else:
            new_y = _Spikes.apply(z, h.derivative) if isinstance(h, Step) else h(z)
        if call.mask is not None:
            on = call.mask[:, t, None]
            new_y, new_s = torch.where(on, new_y, y), torch.where(on, new_s, s)
        y, s = new_y, new_s
        outputs.append(y.to(drive.dtype))
        states.append(s)
    return torch.stack(outputs, 1), s, torch.stack(states, 1)


class _Spikes(torch.autograd.Function):
    """The step with a pseudo-derivative that can be differentiated."""

    @staticmethod
    def forward(ctx: Any, z: torch.Tensor, derivative: Callable[..., Any]) -> torch.Tensor:
        ctx.save_for_backward(z)
        ctx.derivative = derivative
        return (z > 0).to(z.dtype)

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor, None]:
        (z,) = ctx.saved_tensors
        return upstream[0] * ctx.derivative(z, None), None


def _fed_back(call: Call, y: torch.Tensor) -> torch.Tensor:
    fed = y if call.dropout is None else y * call.dropout
    return (fed.to(call.kernel.dtype) @ call.kernel).to(y.dtype)


@torch.no_grad()
def _forward(
    dynamics: Dynamics, drive: torch.Tensor, call: Call, keep: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Run all steps.

    Returns:
        The outputs, the last s, the states s of all steps, and the arguments of g where its value
        does not tell its derivative and `keep` asks for what a backward pass needs.
    """
    decay, threshold, _, y, s, _, mask, _ = call
    g, spiking = dynamics.state_activation, isinstance(dynamics.output, Step)
    known = derivative_from_value(g) is not None
    inputs = drive.to(s.dtype)
    outputs = torch.empty_like(inputs)
    # Without a backward pass a state is written where the one before the last was.
    states = torch.empty_like(inputs) if keep else torch.empty_like(inputs[:, :2])
    arguments = torch.empty_like(inputs) if keep and not known else None
    rows = list(states.unbind(1))
    left = decay * (1.0 - gate(dynamics, y))
    fresh = torch.empty_like(s)
    for t, (z, row) in enumerate(zip(inputs.unbind(1), outputs.unbind(1), strict=True)):
        new = rows[t % len(rows)]
        torch.addcmul(z, s, left, out=new)
        if dynamics.recurrent:
            new += _fed_back(call, y)
        if arguments is not None:
            arguments[:, t] = new
        _apply(g, new)
        if mask is not None:
            torch.where(mask[:, t, None], new, s, out=new)
        s = new
        _fire(s, threshold, row, spiking)
        if mask is not None:
            torch.where(mask[:, t, None], row, y, out=row)
        y = row
        left = torch.addcmul(decay, decay, gate(dynamics, y), value=-1, out=fresh)
    return outputs.to(drive.dtype), s.clone(), states, arguments


def _apply(g: Callable[..., Any], a: torch.Tensor) -> None:
    """Replace an argument by its activation."""
    if g is keras.activations.relu:
        a.relu_()
    elif g is not keras.activations.linear:
        a.copy_(g(a))


def _fire(s: torch.Tensor, threshold: torch.Tensor, y: torch.Tensor, spiking: bool) -> None:
    """Write the outputs for states s to y."""
    if spiking:
        torch.gt(s, threshold, out=y)
    else:
        torch.sub(s, threshold, out=y)
        y.sigmoid_()


class _Backward:
    """One backward pass, step by step, whatever the unit.

    Args:
        dynamics, call: the unit and its run.
        values, states, arguments: what the forward pass kept, in one dtype.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        call: Call,
        values: torch.Tensor,
        states: torch.Tensor,
        arguments: torch.Tensor | None,
    ) -> None:
        self.dynamics, self.call = dynamics, call
        self.states, self.arguments = states, arguments
        self.started: Any = None if call.mask is None else started(call.mask)
        self.values = values
        # The derivatives of h and of g (None for a linear or unknown one), and what the gate
        # leaves of a state.
        self.slope: Any = dynamics.output.derivative(states - call.threshold, values)
        self.of_g: Any = None
        if dynamics.state_activation is keras.activations.relu:
            self.of_g = (states > 0).to(states.dtype)
        self.left = call.decay * (1.0 - gate(dynamics, values))
        # The gradients that come back through H, one for each step.
        self.back = torch.empty_like(states) if dynamics.recurrent else None

    def run(
        self,
        to_outputs: torch.Tensor | None,
        to_last: torch.Tensor | None,
        to_states: torch.Tensor | None,
    ) -> list[torch.Tensor | None]:
        """Return the gradients of drive, decay, threshold, kernel, first y and first s.

        Args:
            to_outputs, to_last, to_states: gradients of the results of the scan, or None.
        """
        call, dynamics = self.call, self.dynamics
        shown = torch.zeros_like(self.states) if to_outputs is None else to_outputs
        # The gradient of each state by what its own step shows.
        own = shown * self.slope
        own = own if to_states is None else own + to_states
        passed = torch.zeros_like(call.s) if to_last is None else to_last
        to_a, after, first, passed = self.steps(own, passed)
        back = send_back(call, first) if dynamics.recurrent else None
        to_y = self.through_gate(call.decay * call.s * first, call.y, back)
        to_s = call.decay * (1.0 - gate(dynamics, call.y)) * first + passed
        found: list[torch.Tensor | None] = [to_a, None, None, None, to_y, to_s]
        if dynamics.trainable_decay:
            by_decay = after * self.states * (1.0 - gate(dynamics, self.values))
            by_first = first * call.s * (1.0 - gate(dynamics, call.y))
            found[1] = self.begun(by_decay).sum((0, 1)) + by_first.sum(0)
        if dynamics.trainable_threshold:
            to_y = self.through_gate(call.decay * self.states * after, self.values, self.back)
            found[2] = -self.begun((shown + to_y) * self.slope).sum((0, 1))
        if dynamics.recurrent:
            y = self.values
            if self.started is not None:
                y = torch.where(self.started[:, :, None], y, call.y[:, None])
            found[3] = to_kernel(call, y, to_a)
        return found

    def steps(self, own: torch.Tensor, passed: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Take all steps backward.

        Args:
            own: gradient of the state of each step by what the step itself shows.
            passed: gradient of the last state.

        Returns:
            Gradients of the arguments of all steps; for each step that of the argument after it;
            that of the first argument; and what a masked first step hands on.
        """
        to_a, afters = torch.empty_like(own), torch.empty_like(own)
        after, zeros = torch.zeros_like(passed), torch.zeros_like(passed)
        for t in range(own.shape[1] - 1, -1, -1):
            afters[:, t] = after
            back = None
            if self.back is not None:
                back = send_back(self.call, after)
                self.back[:, t] = back
            lost = self.call.decay * self.states[:, t] * after
            to_y = self.through_gate(lost, self.values[:, t], back)
            to_s = own[:, t] + self.left[:, t] * after + self.slope[:, t] * to_y + passed
            found = self.through_activation(t, to_s)
            if self.call.mask is None:
                passed, after = zeros, found
            else:
                # Before its first unmasked step a sample is still in its first state.
                on, begun = self.call.mask[:, t, None], self.started[:, t, None]
                found = torch.where(on, found, zeros)
                passed = torch.where(begun & ~on, to_s, zeros)
                after = torch.where(begun, found, after)
            to_a[:, t] = found
        return to_a, afters, after, passed

    def through_gate(
        self, lost: torch.Tensor, y: torch.Tensor, back: torch.Tensor | None
    ) -> torch.Tensor:
        """Return the gradient of y: through the gate, and `back` through H."""
        to_y = -lost
        if self.dynamics.lateral_inhibition:
            to_y = to_y.sum(-1, keepdim=True) * shares(y)
        return to_y if back is None else to_y + back

    def through_activation(self, t: int, to_s: torch.Tensor) -> torch.Tensor:
        """Return the gradient of the argument of g at step t, given the gradient of its value s."""
        if self.arguments is None:
            return to_s if self.of_g is None else to_s * self.of_g[:, t]
        with torch.enable_grad():
            a = self.arguments[:, t].detach().requires_grad_()
            return torch.autograd.grad(self.dynamics.state_activation(a), a, to_s)[0]

    def begun(self, sequence: torch.Tensor) -> torch.Tensor:
        """Return a sequence with zeros before each sample's first unmasked step."""
        if self.started is None:
            return sequence
        return torch.where(self.started[:, :, None], sequence, 0.0)

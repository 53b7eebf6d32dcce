"""The backward loop of units on torch where a step is linear in the gradient after it.

All that a step does beside that is computed for a block of steps at once. A block is small enough
to stay in the cache: to pass over a whole sequence for each operation takes several times as long.
"""

from typing import Any

import keras
import torch

from snukeras.activations import SoftStep, Step, TanhDerivative
from snukeras.layers.snu.dynamics import Call, Dynamics

# What each unit loses of what comes after, and the gradient of its potential by what all lose.
_Inhibited = tuple[torch.Tensor, torch.Tensor]

# Numbers in a block of steps, of which about ten are in use at once.
_BLOCK = 2**16


def folds(dynamics: Dynamics, call: Call) -> bool:
    """Return whether the loop here serves: no mask, g linear or ReLU."""
    known = dynamics.state_activation in (keras.activations.linear, keras.activations.relu)
    return known and call.mask is None


def gate(dynamics: Dynamics, y: torch.Tensor) -> torch.Tensor:
    """Return y, or with lateral inhibition the maximum of y of the sample."""
    return y.amax(-1, keepdim=True) if dynamics.lateral_inhibition else y


def shares(y: torch.Tensor) -> torch.Tensor:
    """Return the gradient of the maximum of y over the units, which ties share equally."""
    winners = (y == y.amax(-1, keepdim=True)).to(y.dtype)
    return winners / winners.sum(-1, keepdim=True)


def gradients(
    dynamics: Dynamics,
    call: Call,
    outputs: torch.Tensor,
    states: torch.Tensor,
    to_outputs: torch.Tensor | None,
    to_last: torch.Tensor | None,
    to_states: torch.Tensor | None,
) -> list[torch.Tensor | None]:
    """Return the gradients of drive, decay, threshold, kernel, first y and first s.

    Args:
        dynamics, call: the unit and its run.
        outputs, states: what the forward pass kept, (batch, time, units), in one dtype.
        to_outputs, to_last, to_states: gradients of the results of the scan, or None.
    """
    loop = _Loop(dynamics, call, outputs, states)
    batch, steps, units = states.shape
    size = max(1, _BLOCK // (batch * units))
    after = torch.zeros_like(call.s)
    for end in range(steps, 0, -size):
        part = slice(max(0, end - size), end)
        shown, own = (None if x is None else x[:, part] for x in (to_outputs, to_states))
        after = loop.take(part, shown, own, to_last if end == steps else None, after)
    back = send_back(call, after) if dynamics.recurrent else None
    lost = call.decay * call.s * after
    if dynamics.lateral_inhibition:
        lost = lost.sum(-1, keepdim=True) * shares(call.y)
    to_y = -lost if back is None else back - lost
    left = 1.0 - gate(dynamics, call.y)
    to_s = call.decay * left * after
    to_decay = loop.to_decay + (after * call.s * left).sum(0)
    return [
        loop.to_a,
        to_decay if dynamics.trainable_decay else None,
        -loop.to_threshold if dynamics.trainable_threshold else None,
        to_kernel(call, outputs, loop.to_a) if dynamics.recurrent else None,
        to_y,
        to_s,
    ]


class _Loop:
    """The loop over blocks, from the last to the first; arguments as in `gradients`."""

    def __init__(
        self, dynamics: Dynamics, call: Call, outputs: torch.Tensor, states: torch.Tensor
    ) -> None:
        self.dynamics, self.call, self.outputs, self.states = dynamics, call, outputs, states
        self.rectified = dynamics.state_activation is keras.activations.relu
        self.to_a = torch.empty_like(states)
        self.to_decay = torch.zeros_like(call.decay)
        self.to_threshold = torch.zeros_like(call.threshold)

    def take(
        self,
        part: slice,
        shown: torch.Tensor | None,
        own: torch.Tensor | None,
        passed: torch.Tensor | None,
        after: torch.Tensor,
    ) -> torch.Tensor:
        """Take the steps of a block backward.

        Args:
            part: the steps.
            shown, own: gradients of their outputs and of their states, or None.
            passed: gradient of the last state of all, in the block that has it.
            after: gradient of the argument of the step after the block.

        Returns:
            That of the first step of the block.
        """
        dynamics, decay = self.dynamics, self.call.decay
        s, y, to_a = self.states[:, part], self.outputs[:, part], self.to_a[:, part]
        slope = _slope(dynamics.output, s - self.call.threshold, y)
        shown = torch.zeros_like(slope) if shown is None else slope * shown
        # A step loses decay * s through the gate where y grows.
        through = torch.addcmul(decay, decay, gate(dynamics, y), value=-1)
        inhibited: _Inhibited | None = None
        if dynamics.lateral_inhibition:
            inhibited = (s * decay, slope * shares(y))
        else:
            lost = slope * s
            lost *= decay
            through -= lost
        to_s = shown if own is None else shown + own
        if passed is not None:
            to_s = to_s.clone() if to_s is shown else to_s
            to_s[:, -1] += passed
        steep = slope if dynamics.recurrent else None
        rectified = inhibited
        if self.rectified:
            to_s, through = self.rectify(to_s, s), self.rectify(through, s)
            rectified = inhibited and (inhibited[0], self.rectify(inhibited[1], s))
            steep = None if steep is None else self.rectify(steep, s)
        backs = self.walk(to_s, through, steep, rectified, to_a, after)
        if dynamics.trainable_threshold or dynamics.trainable_decay:
            afters = torch.cat([to_a[:, 1:], after[:, None]], 1)
        if dynamics.trainable_threshold:
            if inhibited is None:
                to_z = torch.addcmul(shown, lost, afters, value=-1)
            else:
                total = (inhibited[0] * afters).sum(-1, keepdim=True)
                to_z = torch.addcmul(shown, inhibited[1], total, value=-1)
            if backs is not None:
                to_z.addcmul_(slope, backs)
            self.to_threshold += to_z.sum((0, 1))
        if dynamics.trainable_decay:
            self.to_decay += (afters * s * (1.0 - gate(dynamics, y))).sum((0, 1))
        return to_a[:, 0]

    def rectify(self, gradient: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        """Return a gradient behind a ReLU with value s."""
        return torch.ops.aten.threshold_backward(gradient, s, 0.0)

    def walk(
        self,
        to_s: torch.Tensor,
        through: torch.Tensor,
        steep: torch.Tensor | None,
        inhibited: _Inhibited | None,
        to_a: torch.Tensor,
        after: torch.Tensor,
    ) -> torch.Tensor | None:
        """Write to_a = to_s + through * after of each step, and what comes back through H.

        With lateral inhibition the sum over the units of what the step after loses goes to those
        with the largest output.

        Returns:
            The gradients that came back through H, where there is one.
        """
        rows: list[Any] = [list(x.unbind(1)) for x in (to_s, through, to_a)]
        if steep is None and inhibited is None:
            for own, factor, row in zip(*map(reversed, rows), strict=True):
                torch.addcmul(own, factor, after, out=row)
                after = row
            return None
        backs = None if steep is None else torch.empty_like(to_s)
        recurrent = [x.unbind(1) for x in (steep, backs) if x is not None]
        shared = [x.unbind(1) for x in inhibited or ()]
        for t in range(to_s.shape[1] - 1, -1, -1):
            own, factor, row = (each[t] for each in rows)
            back = send_back(self.call, after, recurrent[1][t]) if recurrent else None
            torch.addcmul(own, factor, after, out=row)
            if back is not None:
                row.addcmul_(recurrent[0][t], back)
            if shared:
                total = torch.linalg.vecdot(shared[0][t], after)
                row.addcmul_(shared[1][t], total[:, None], value=-1)
            after = row
        return backs


def _slope(output: Step | SoftStep, z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return the derivative of the output at z, where it is y."""
    bump = getattr(output, "pseudo_derivative", None)
    if type(bump) is not TanhDerivative:
        return output.derivative(z, y)
    # The same by a sigmoid, for which torch needs a tenth of the time: 1 - tanh(v)^2 is
    # 4 p (1 - p) with p = sigmoid(2 v).
    z *= 2.0 * bump.slope
    z.sigmoid_()
    return torch.addcmul(z, z, z, value=-1, out=z).mul_(4.0)


def send_back(call: Call, after: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """Return the gradient of y through H, given that of the argument after it.

    Args:
        call: what the run was given.
        after: that gradient, (batch, units).
        out: where to write the result.
    """
    back = after.to(call.kernel.dtype) @ call.kernel.T
    if call.dropout is not None:
        back = back * call.dropout
    return back.to(after.dtype) if out is None else out.copy_(back)


def to_kernel(call: Call, y: torch.Tensor, to_a: torch.Tensor) -> torch.Tensor:
    """Return the gradient of H, given outputs and gradients of the arguments of all steps."""
    fed = torch.cat([call.y[:, None], y[:, :-1]], 1)
    fed = fed if call.dropout is None else fed * call.dropout[:, None]
    fed, to_a = (x.to(call.kernel.dtype).flatten(0, 1) for x in (fed, to_a))
    return fed.T @ to_a

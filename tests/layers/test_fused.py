"""What the compiled scans are made of; that they compute the right thing is in
test_against_oracle.py."""

import re

import pytest
import tensorflow as tf

from snukeras.layers import SNU, SSNU
from snukeras.layers.snu.dynamics import Call, Dynamics
from snukeras.layers.snu.kernels import Kernels

BATCH, STEPS, UNITS = 3, 7, 5


@pytest.mark.some_cases(3)
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize(
    "cls, arguments, dtype, masked",
    [
        (SNU, {}, "float32", False),
        (SNU, {}, "float32", True),
        (SNU, {}, "bfloat16", False),
        (SNU, {"state_activation": "silu"}, "float32", False),
        (SNU, {"lateral_inhibition": True}, "float32", False),
        (SNU, {"recurrent": True}, "float32", True),
        (SSNU, {"recurrent": True}, "bfloat16", False),
        (SSNU, {}, "float32", True),
    ],
)
def test_sequences_are_not_copied_at_every_step(cls, arguments, dtype, masked, keep):
    cell = cls(UNITS, **arguments).cell
    dynamics = Dynamics(
        state_activation=cell.state_activation,
        output=cell.output_function,
        recurrent=cell.recurrent,
        carries_output=cell.recurrent,
        lateral_inhibition=cell.lateral_inhibition,
        trainable_decay=False,
        trainable_threshold=True,
    )
    kernels = Kernels(dynamics)
    size = UNITS if cell.recurrent else 0
    units, state = tf.ones(UNITS), tf.zeros((BATCH, UNITS))
    mask = tf.ones((BATCH, STEPS), tf.bool) if masked else None
    call = Call(units, units, tf.zeros((size, size), dtype), state, state, None, mask, None)
    run = kernels.forward if keep else kernels.infer
    drive = tf.zeros((BATCH, STEPS, UNITS), dtype)
    program = run.experimental_get_compiler_ir(drive, call)("optimized_hlo")
    loops = set(re.findall(r"body=%?([\w.-]+)", program))
    assert loops
    for computation in re.split(r"\n(?=%|ENTRY)", program):
        name = computation.split()[0].lstrip("%")
        if name in loops:
            sequence = rf"\[{BATCH},{STEPS},{UNITS}\]\S* copy\("
            assert not re.search(sequence, computation), computation

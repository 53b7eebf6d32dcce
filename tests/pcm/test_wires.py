"""IR drop against the circuit, and what is said where its first order fails."""

import warnings

import numpy as np
import pytest

from snukeras.pcm import Crossbar, with_ir_drop


def solve_circuit(conductances, inputs, resistance):
    """Bit-line currents of a tile with resistive wires, by nodal analysis; uS, ohm, V -> uA.

    Each cell has a node on its word line and one on each of its two bit lines. Word lines are
    driven before column 0, bit lines are held at 0 V before row 0.
    """
    _, rows, columns = conductances.shape
    wire = 1e6 / resistance  # uS
    word = np.arange(rows * columns).reshape(rows, columns)
    bit = [word + rows * columns, word + 2 * rows * columns]
    nodes = 3 * rows * columns
    laplacian, current = np.zeros((nodes, nodes)), np.zeros(nodes)

    def join(a, b, g):
        laplacian[a, a] += g
        laplacian[b, b] += g
        laplacian[a, b] -= g
        laplacian[b, a] -= g

    for i in range(rows):
        for j in range(columns):
            if j:
                join(word[i, j - 1], word[i, j], wire)
            else:
                laplacian[word[i, 0], word[i, 0]] += wire
                current[word[i, 0]] += wire * inputs[i]
            for line in (0, 1):
                join(word[i, j], bit[line][i, j], conductances[line, i, j])
                if i:
                    join(bit[line][i - 1, j], bit[line][i, j], wire)
                else:
                    laplacian[bit[line][0, j], bit[line][0, j]] += wire
    volts = np.linalg.solve(laplacian, current)
    return np.stack([volts[bit[line][0]] * wire for line in (0, 1)])


def test_ir_drop_is_the_circuit_to_first_order():
    generator = np.random.default_rng(0)
    g = generator.uniform(0, 25, (2, 12, 8))
    x = generator.normal(size=12)
    ideal = np.einsum("i,lij->lj", x, g)
    errors = []
    for resistance in (0.5, 5.0):
        circuit = solve_circuit(g, x, resistance)
        model = np.einsum("i,lij->lj", x, with_ir_drop(g, resistance))
        drop = np.abs(circuit - ideal).max()
        errors.append(np.abs(model - circuit).max())
        assert errors[-1] < 0.02 * drop
    # What is left is of second order: a hundred times for ten times the resistance.
    assert errors[1] / errors[0] == pytest.approx(100, rel=0.1)
    assert with_ir_drop(g, 0.0) is g
    with pytest.raises(ValueError, match="`wire_resistance`"):
        with_ir_drop(g, -1.0)


def test_ir_drop_says_where_the_first_order_fails():
    dense = np.full((2, 256, 256), 25.0)
    with pytest.warns(UserWarning, match=r"\d+% of the devices lose more than 30%"):
        assert np.mean(with_ir_drop(dense, 2.0) == 0) > 0.9
    with pytest.warns(UserWarning, match="^'w' has wires too resistive"):
        Crossbar(np.ones((256, 256)), wire_resistance=2.0, name="w")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Crossbar(np.random.default_rng(0).normal(size=(256, 256)), wire_resistance=0.35)
    # At the limit the model is some 4 % of the output from the circuit.
    g = np.full((2, 24, 24), 25.0)
    limit = 0.3 / (1e-6 * 3 * 25.0 * 24 * 25 / 2)
    circuit = solve_circuit(g, np.ones(24), limit)
    model = np.einsum("i,lij->lj", np.ones(24), with_ir_drop(g, limit))
    ideal = np.einsum("i,lij->lj", np.ones(24), g)
    assert 0.02 < np.linalg.norm(model - circuit) / np.linalg.norm(ideal) < 0.08

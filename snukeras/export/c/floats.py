"""Write one step of a network in float32: model.h and model.c."""

import dataclasses

import numpy as np

from snukeras.export.c.plan import (
    Activate,
    Activation,
    Coding,
    Convolution,
    Dense,
    Mean,
    Neurons,
    Operation,
    Plan,
    Pool,
    Product,
    Tensor,
    Units,
)
from snukeras.export.c.text import (
    Field,
    array,
    contribution,
    equation,
    found_spikes,
    indented,
    index_type,
    kept_outputs,
    largest_lines,
    leaked,
    lif_equation,
    number,
    pooling,
    reset_function,
    spike_list,
    spread,
    step_arguments,
    struct_bytes,
    unused,
)

_HELPERS = """\
/* Add a row of weights: what one spike contributes. */
static void add_row(float *restrict sums, const float *restrict row, int32_t n)
{
    int32_t j;
    for (j = 0; j < n; j++) sums[j] += row[j];
}"""
_SCALED = """\
/* Add a row of weights times a number. */
static void add_scaled(float *restrict sums, const float *restrict row, int32_t n, float value)
{
    int32_t j;
    for (j = 0; j < n; j++) sums[j] += value * row[j];
}"""
_ELEMENTWISE = {
    "relu": "v > 0.0f ? v : 0.0f",
    "relu6": "v < 0.0f ? 0.0f : v > 6.0f ? 6.0f : v",
    "leaky_relu": "v > 0.0f ? v : {slope} * v",
    "elu": "v > 0.0f ? v : {slope} * expm1f(v)",
    "selu": "v > 0.0f ? 1.05070098f * v : 1.75809934f * expm1f(v)",
    "softplus": "v > 0.0f ? v + log1pf(expf(-v)) : log1pf(expf(v))",
    "softsign": "v / (1.0f + fabsf(v))",
    "tanh": "tanhf(v)",
    "sigmoid": "1.0f / (1.0f + expf(-v))",
    "hard_sigmoid": "v < -3.0f ? 0.0f : v > 3.0f ? 1.0f : v / 6.0f + 0.5f",
    "silu": "v / (1.0f + expf(-v))",
    "gelu": "0.5f * v * (1.0f + erff(v * 0.707106781f))",
    "exponential": "expf(v)",
}


@dataclasses.dataclass(frozen=True)
class Source:
    """A pair of C files.

    Attributes:
        header, code: Their texts.
        fields: Members of the struct.
        weights: Bytes of constant data.
    """

    header: str
    code: str
    fields: tuple[Field, ...]
    weights: int

    @property
    def ram(self) -> int:
        """Bytes of the struct."""
        return struct_bytes(self.fields)


def write(plan: Plan) -> Source:
    """Write one step of a plan in float32."""
    return _Writer(plan).source()


class _Writer:
    """Collects constants, members of the struct, functions and the lines of the step."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.constants: dict[str, np.ndarray] = {}
        self.fields: list[Field] = []
        self.functions: list[str] = []
        self.lines: list[str] = []
        self.resets: list[str] = []
        self.held: set[str] = set()
        # An output that is computed last is written where the caller wants it.
        self.places = {
            tensor.label: f"output_{index}"
            for index, tensor in enumerate(plan.outputs)
            if not tensor.spikes and tensor.label not in {each.label for each in plan.inputs}
        }

    def source(self) -> Source:
        for operation in self.plan.operations:
            self.operation(operation)
        for index, tensor in enumerate(self.plan.outputs):
            self.leave(index, tensor)
        order = sorted(self.fields, key=lambda field: -field.alignment)
        used = "\n".join([*self.functions, *self.lines])
        helpers = [
            text
            for name, text in (("add_row(", _HELPERS), ("add_scaled(", _SCALED))
            if name in used
        ]
        arrays = [array("float", name, values) for name, values in self.constants.items()]
        plan = self.plan
        loops = [
            f"int32_t {index};" for index in "ijk" if any(f"({index} = 0;" in x for x in self.lines)
        ]
        used_net = any("net->" in line for line in self.lines)
        start = loops if used_net else [*loops, "(void)net;"]
        step = (
            f"void {plan.name}_step({step_arguments(plan, 'float')})\n"
            f"{{\n{indented([*start, *self.lines])}\n}}"
        )
        reset = reset_function(plan, self.resets)
        code = "\n\n".join(
            [
                f"/* {plan.name}: one step in float32, written by snukeras; see model.h. */",
                '#include "model.h"\n\n#include <math.h>\n#include <string.h>',
                *arrays,
                *helpers,
                *self.functions,
                reset,
                step,
            ]
        )
        weights = sum(4 * values.size for values in self.constants.values())
        return Source(self.header(order), code + "\n", tuple(order), weights)

    def header(self, fields: list[Field]) -> str:
        """Return model.h."""
        plan = self.plan
        return header(plan, "float", fields, "model.h", ends(plan))

    def operation(self, operation: Operation) -> None:
        """Add the lines of an operation."""
        if self.lines:
            self.lines.append("")
        match operation:
            case Units():
                self.units(operation)
            case Neurons():
                self.neurons(operation)
            case Dense():
                self.dense(operation)
            case Activate():
                self.activate(operation)
            case Mean():
                self.mean(operation)
            case Pool():
                self.pool(operation)
            case Coding():
                self.coding(operation)

    def constant(self, name: str, values: np.ndarray) -> str:
        """Keep a constant array; return how C calls it."""
        name = unused(f"{self.plan.name}_{name}", self.constants)
        self.constants[name] = np.asarray(values, "float32")
        return name

    def per_unit(self, name: str, values: np.ndarray, places: int) -> str:
        """Return the value of unit j in C: a number where all are equal, else from an array."""
        if np.all(values == values.flat[0]):
            return number(values.flat[0])
        index = "j" if places == 1 else f"j % {values.size}"
        return f"{self.constant(name, values)}[{index}]"

    def buffer(self, tensor: Tensor, meaning: str) -> str:
        """Return where the numbers of a tensor are written."""
        if tensor.label in self.places:
            return self.places[tensor.label]
        if tensor.label not in self.held:
            self.held.add(tensor.label)
            name = f"{tensor.label}_out"
            self.fields.append(Field("float", name, tensor.size, meaning))
        return f"net->{tensor.label}_out"

    def numbers(self, tensor: Tensor) -> str:
        """Return where the numbers of a tensor are read."""
        if tensor.label in {each.label for each in self.plan.inputs}:
            return tensor.label
        return self.places.get(tensor.label, f"net->{tensor.label}_out")

    def spikes(self, tensor: Tensor, meaning: str) -> tuple[str, str]:
        """Add the members that hold the spikes of a tensor."""
        kind = index_type(tensor.size)
        self.fields.append(Field(kind, f"{tensor.label}_spikes", tensor.size, meaning))
        self.fields.append(Field(kind, f"{tensor.label}_count", None, "how many"))
        return spike_list(tensor)

    def add_product(self, product: Product, name: str, source: Tensor, sums: str) -> list[str]:
        """Return the lines that add the product with a source, all of one step."""
        if isinstance(product, Convolution):
            scaled = not source.spikes
            add = "add_scaled" if scaled else "add_row"
            self.functions.append(spread(f"{name}_spread", "float", product, scaled, add))
        if source.spikes:
            spikes, count = spike_list(source)
            call = contribution(product, name, f"{spikes}[k]", sums, "", "add_row")
            return [f"for (k = 0; k < (int32_t){count}; k++) {call}"]
        x = f"{self.numbers(source)}[i]"
        lines = [f"for (i = 0; i < {source.size}; i++) {{"]
        if isinstance(product, Convolution):
            call = contribution(product, name, "i", sums, x, "add_scaled")
            return [*lines, f"    if ({x} != 0.0f) {call}", "}"]
        row = contribution(product, name, "i", sums, "", "add_row")
        call = contribution(product, name, "i", sums, x, "add_scaled")
        return [
            *lines,
            f"    if ({x} == 1.0f) {row}",
            f"    else if ({x} != 0.0f) {call}",
            "}",
        ]

    def units(self, units: Units) -> None:
        """Add a layer of units."""
        label, size = units.label, units.target.size
        places = units.product.places
        s = f"net->{label}_s"
        self.fields.append(Field("float", f"{label}_s", size, f"potentials of {units.call}"))
        decay = self.per_unit(f"{label}_decay", units.decay, places)
        threshold = self.per_unit(f"{label}_threshold", units.threshold, places)
        self.lines.append(f"/* {units.call}: {equation(units)} */")
        bias = ""
        if units.bias is not None:
            bias = " + " + self.per_unit(f"{label}_bias", units.bias, places)
        if units.spiking:
            self.spikes(units.target, f"spikes of {units.call}")
            self.gate_of_spikes(units, s)
            leak = f"{s}[j] = {decay} * {s}[j]{bias};"
        else:
            y = f"net->{label}_y"
            self.fields.append(Field("float", f"{label}_y", size, f"outputs of {units.call}"))
            self.places_of_soft(units)
            gate = self.soft_gate(units, y)
            leak = f"{s}[j] = {decay} * {s}[j] * (1.0f - {gate}){bias};"
        self.lines.append(f"for (j = 0; j < {size}; j++) {leak}")
        kernel = self.constant(f"{label}_kernel", units.product.rows)
        self.lines += self.add_product(units.product, kernel, units.source, s)
        if units.loop is not None:
            loop = self.constant(f"{label}_recurrent_kernel", units.loop.rows)
            self.lines += self.add_product(units.loop, loop, units.target, s)
        self.decide(units, s, threshold)

    def neurons(self, neurons: Neurons) -> None:
        """Add a LIF layer."""
        label, size, target = neurons.label, neurons.target.size, neurons.target
        v = f"net->{label}_v"
        self.fields.append(Field("float", f"{label}_v", size, f"potentials of {neurons.call}"))
        if np.any(neurons.start):
            start = self.per_unit(f"{label}_start", neurons.start, 1)
            self.resets.append(f"for (j = 0; j < {size}; j++) {v}[j] = {start};")
        self.lines.append(f"/* {neurons.call}: {lif_equation(neurons)} */")
        if target.spikes:
            self.spikes(target, f"spikes of {neurons.call}")
        else:
            self.places[target.label] = f"net->{label}_y"
            self.fields.append(Field("float", f"{label}_y", size, f"outputs of {neurons.call}"))
        if neurons.delayed:
            self.lines += kept_outputs(neurons, self.fields, "float")
        x = self.current(neurons)
        decay, gain = (
            self.per_unit(f"{label}_{name}", getattr(neurons, name), 1)
            for name in ("decay", "gain")
        )
        drive = f"{x}[j]" if np.all(neurons.gain == 1.0) else f"{gain} * {x}[j]"
        if np.any(neurons.bias):
            drive += f" + {self.per_unit(f'{label}_bias', neurons.bias, 1)}"
        subtract = ""
        if neurons.subtracted is not None:
            taken = self.per_unit(f"{label}_reset_by", neurons.subtracted, 1)
            times = "" if neurons.target.spikes else f" * net->{label}_y[j]"
            subtract = f"{v}[j] -= {taken}{times};"
        self.lines += leaked(neurons, f"{v}[j] = {decay} * {v}[j] + {drive};", subtract, "0.0f")
        self.fire(neurons)

    def current(self, neurons: Neurons) -> str:
        """Add the lines of what goes into the neurons; return where it is."""
        label, size, source = neurons.label, neurons.target.size, neurons.source
        if neurons.loop is None and neurons.synaptic_decay is None and not source.spikes:
            return self.numbers(source)
        i = f"net->{label}_i"
        self.fields.append(Field("float", f"{label}_i", size, f"currents of {neurons.call}"))
        left = "0.0f"
        if neurons.synaptic_decay is not None:
            slow = self.per_unit(f"{label}_synaptic_decay", neurons.synaptic_decay, 1)
            left = f"{slow} * {i}[j]"
        x = "" if source.spikes else f" + {self.numbers(source)}[j]"
        self.lines.append(f"for (j = 0; j < {size}; j++) {i}[j] = {left}{x};")
        if source.spikes:
            spikes, count = spike_list(source)
            self.lines.append(f"for (k = 0; k < (int32_t){count}; k++) {i}[{spikes}[k]] += 1.0f;")
        if neurons.loop is not None:
            kernel = self.constant(f"{label}_recurrent_kernel", neurons.loop.rows)
            self.lines += self.add_product(neurons.loop, kernel, neurons.target, i)
        return i

    def fire(self, neurons: Neurons) -> None:
        """Add the lines from potentials to outputs."""
        label, size = neurons.label, neurons.target.size
        v, y = f"net->{label}_v", f"net->{label}_{'pending' if neurons.delayed else 'y'}"
        if neurons.threshold is None:
            self.lines.append(f"for (j = 0; j < {size}; j++) {y}[j] = {v}[j];")
            return
        threshold = self.per_unit(f"{label}_threshold", neurons.threshold, 1)
        if neurons.several:
            self.lines += [
                f"for (j = 0; j < {size}; j++) {{",
                f"    const float whole = floorf({v}[j] / {threshold});",
                f"    {y}[j] = whole > 0.0f ? whole : 0.0f;",
                "}",
            ]
            return
        self.lines += found_spikes(neurons, f"{v}[j] > {threshold}")

    def places_of_soft(self, units: Units) -> None:
        """Let soft outputs be read where the layer keeps them."""
        self.places[units.target.label] = f"net->{units.label}_y"

    def gate_of_spikes(self, units: Units, s: str) -> None:
        """Add the lines that drop the potentials of units that spiked, or of their rivals too."""
        spikes, count = spike_list(units.target)
        if not units.inhibition:
            self.lines.append(f"for (k = 0; k < (int32_t){count}; k++) {s}[{spikes}[k]] = 0.0f;")
            return
        n = units.product.rows.shape[1]
        base = f"{spikes}[k] / {n} * {n} + j" if units.product.places > 1 else "j"
        self.lines += [
            f"for (k = 0; k < (int32_t){count}; k++) {{",
            f"    for (j = 0; j < {n}; j++) {s}[{base}] = 0.0f;",
            "}",
        ]

    def soft_gate(self, units: Units, y: str) -> str:
        """Return the gate of unit j; with inhibition it is put into the first of its place."""
        if not units.inhibition:
            return f"{y}[j]"
        n, places = units.product.rows.shape[1], units.product.places
        gates = f"net->{units.label}_gate"
        self.fields.append(
            Field("float", f"{units.label}_gate", places, f"largest outputs of {units.call}")
        )
        self.lines += largest_lines(gates, y, n, places)
        return f"{gates}[j / {n}]"

    def decide(self, units: Units, s: str, threshold: str) -> None:
        """Add the lines from the sums to the outputs."""
        size = units.target.size
        body = []
        if units.activation.name != "linear":
            function = self.function(units.activation)
            body.append(f"    {s}[j] = {function}({s}[j]);")
        if units.spiking:
            spikes, count = spike_list(units.target)
            kind = index_type(size)
            self.lines.append(f"{count} = 0;")
            body.append(f"    if ({s}[j] > {threshold}) {spikes}[{count}++] = ({kind})j;")
        else:
            body.append(
                f"    net->{units.label}_y[j] = 1.0f / (1.0f + expf({threshold} - {s}[j]));"
            )
        self.lines += [f"for (j = 0; j < {size}; j++) {{", *body, "}"]

    def function(self, activation: Activation) -> str:
        """Add the function of an element-wise activation; return its name."""
        name = activation.name
        text = _ELEMENTWISE[name]
        if "{slope}" in text:
            name += "_" + number(activation.slope).translate(str.maketrans(".-+", "pmp"))
            text = text.format(slope=number(activation.slope))
        name = f"apply_{name}"
        code = f"static float {name}(float v)\n{{\n    return {text};\n}}"
        if code not in self.functions:
            self.functions.append(code)
        return name

    def dense(self, dense: Dense) -> None:
        """Add a Dense layer."""
        label, size, places = dense.label, dense.target.size, dense.product.places
        z = self.buffer(dense.target, f"outputs of {dense.call}")
        self.lines.append(f"/* {dense.call} */")
        bias = "0.0f"
        if dense.bias is not None:
            bias = self.per_unit(f"{label}_bias", dense.bias, places)
        self.lines.append(f"for (j = 0; j < {size}; j++) {z}[j] = {bias};")
        kernel = self.constant(f"{label}_kernel", dense.product.rows)
        self.lines += self.add_product(dense.product, kernel, dense.source, z)
        self.lines += self.activated(dense.activation, z, dense.target)

    def activated(self, activation: Activation, z: str, tensor: Tensor) -> list[str]:
        """Return the lines that apply an activation in place."""
        if activation.name == "linear":
            return []
        if activation.name in ("softmax", "log_softmax"):
            self.normaliser(activation.name)
            n = tensor.shape[-1]
            if tensor.size == n:
                return [f"apply_{activation.name}({z}, {n});"]
            loop = f"for (i = 0; i < {tensor.size}; i += {n})"
            return [f"{loop} apply_{activation.name}({z} + i, {n});"]
        function = self.function(activation)
        return [f"for (j = 0; j < {tensor.size}; j++) {z}[j] = {function}({z}[j]);"]

    def normaliser(self, name: str) -> None:
        """Add the function of softmax or log_softmax."""
        last = "v[j] /= sum" if name == "softmax" else "v[j] -= top + logf(sum)"
        each = "v[j] = expf(v[j] - top)" if name == "softmax" else "expf(v[j] - top)"
        gain = f"sum += {each};" if name == "log_softmax" else f"sum += ({each});"
        code = (
            f"static void apply_{name}(float *v, int32_t n)\n{{\n"
            "    float top = v[0], sum = 0.0f;\n    int32_t j;\n"
            "    for (j = 1; j < n; j++)\n        if (v[j] > top) top = v[j];\n"
            f"    for (j = 0; j < n; j++) {gain}\n"
            f"    for (j = 0; j < n; j++) {last};\n}}"
        )
        if code not in self.functions:
            self.functions.append(code)

    def activate(self, activate: Activate) -> None:
        """Add an activation of its own."""
        z = self.buffer(activate.target, f"outputs of {activate.call}")
        self.lines.append(f"/* {activate.call} */")
        self.copy(activate.source, z)
        self.lines += self.activated(activate.activation, z, activate.target)

    def copy(self, source: Tensor, z: str) -> None:
        """Add the lines that write a tensor as numbers."""
        if source.spikes:
            spikes, count = spike_list(source)
            self.lines.append(f"for (j = 0; j < {source.size}; j++) {z}[j] = 0.0f;")
            self.lines.append(f"for (k = 0; k < (int32_t){count}; k++) {z}[{spikes}[k]] = 1.0f;")
        elif self.numbers(source) != z:
            x = self.numbers(source)
            self.lines.append(f"for (j = 0; j < {source.size}; j++) {z}[j] = {x}[j];")

    def mean(self, mean: Mean) -> None:
        """Add the mean of the steps so far."""
        label, size = mean.label, mean.source.size
        total, count = f"net->{label}_total", f"net->{label}_steps"
        self.fields.append(Field("float", f"{label}_total", size, f"sums of {mean.call}"))
        self.fields.append(Field("uint32_t", f"{label}_steps", None, "steps so far"))
        z = self.buffer(mean.target, f"outputs of {mean.call}")
        self.lines.append(f"/* {mean.call}: the mean of the steps so far */")
        if mean.source.spikes:
            spikes, n = spike_list(mean.source)
            self.lines.append(f"for (k = 0; k < (int32_t){n}; k++) {total}[{spikes}[k]] += 1.0f;")
        else:
            x = self.numbers(mean.source)
            self.lines.append(f"for (j = 0; j < {size}; j++) {total}[j] += {x}[j];")
        self.lines.append(f"{count}++;")
        self.lines.append(f"for (j = 0; j < {size}; j++) {z}[j] = {total}[j] / (float){count};")

    def pool(self, pool: Pool) -> None:
        """Add the largest or the mean of windows of maps."""
        z = self.buffer(pool.target, f"outputs of {pool.call}")
        x = self.numbers(pool.source)
        if pool.source.spikes:
            x = f"net->{pool.label}_in"
            self.fields.append(
                Field("float", f"{pool.label}_in", pool.source.size, f"inputs of {pool.call}")
            )
            self.copy(pool.source, x)
        name = f"{pool.label}_pool"
        self.functions.append(pooling(pool, name, "float", "float"))
        self.lines.append(f"{name}({x}, {z});")

    def coding(self, coding: Coding) -> None:
        """Add the spikes of an image."""
        steps, size = coding.thresholds.shape
        spikes, count = self.spikes(coding.target, f"spikes of {coding.call}")
        step = f"net->{coding.label}_step"
        self.fields.append(Field("uint32_t", f"{coding.label}_step", None, "step of the coding"))
        thresholds = self.constant(f"{coding.label}_thresholds", coding.thresholds)
        x = self.numbers(coding.source)
        rate = f"{x}[j]"
        if coding.probability != 1.0:
            rate += f" * {number(coding.probability)}"
        kind = index_type(size)
        self.lines += [
            f"/* {coding.call}: a spike where the input exceeds the threshold of the step */",
            f"{count} = 0;",
            f"for (j = 0; j < {size}; j++)",
            f"    if ({rate} > {thresholds}[{step} * {size} + (uint32_t)j])"
            f" {spikes}[{count}++] = ({kind})j;",
            f"{step} = ({step} + 1) % {steps};",
        ]

    def leave(self, index: int, tensor: Tensor) -> None:
        """Add the lines that write an output, where no operation has."""
        z = f"output_{index}"
        if self.places.get(tensor.label) == z:
            return
        self.lines += ["", "/* output */"]
        self.copy(tensor, z)


def ends(plan: Plan) -> list[str]:
    """Return the lines that say what the step takes and gives."""
    lines = []
    for tensor in plan.inputs:
        lines.append(f"{tensor.label}: {tensor.size} numbers, shape {_shape(tensor)}")
    for index, tensor in enumerate(plan.outputs):
        so_far = "" if tensor.over_time else ", of the steps so far"
        lines.append(f"output_{index}: {tensor.size} numbers, shape {_shape(tensor)}{so_far}")
    return lines


def _shape(tensor: Tensor) -> str:
    return "x".join(str(size) for size in tensor.shape)


def header(plan: Plan, kind: str, fields: list[Field], file: str, told: list[str]) -> str:
    """Return a header file.

    Args:
        plan: The plan.
        kind: Type of inputs and outputs.
        fields: Members of the struct, by falling alignment.
        file: Its name.
        told: Lines about inputs and outputs.
    """
    guard = f"{plan.name}_{file.replace('.', '_')}".upper()
    sizes = [f"#define {plan.name.upper()}_{t.label.upper()}_SIZE {t.size}" for t in plan.inputs]
    sizes += [
        f"#define {plan.name.upper()}_OUTPUT_{index}_SIZE {tensor.size}"
        for index, tensor in enumerate(plan.outputs)
    ]
    members = fields or [Field("uint16_t", "unused", None, "a network without states")]
    return "\n".join(
        [
            f"/* {plan.name}: one step of a network, written by snukeras.",
            f" * Start with {plan.name}_reset, then call {plan.name}_step once for each step.",
            *(f" * {line}" for line in told),
            " */",
            f"#ifndef {guard}",
            f"#define {guard}",
            "",
            "#include <stdint.h>",
            "",
            *sizes,
            "",
            f"struct {plan.name} {{",
            indented(field.declaration() for field in members),
            "};",
            "",
            f"void {plan.name}_reset(struct {plan.name} *net);",
            f"void {plan.name}_step({step_arguments(plan, kind)});",
            "",
            "#endif",
            "",
        ]
    )

"""Write one step of a network in integers: model_int8.h and model_int8.c."""

import numpy as np

from snukeras.export.c.floats import Source, ends, header
from snukeras.export.c.plan import Activation, Convolution, Tensor
from snukeras.export.c.quantise import (
    LARGEST,
    PART_BITS,
    PARTS,
    SOFT_BITS,
    TABLE_BITS,
    IntegerActivate,
    IntegerCoding,
    IntegerDense,
    IntegerMean,
    IntegerNeurons,
    IntegerOperation,
    IntegerPool,
    Integers,
    IntegerUnits,
    Rescale,
    Scaled,
    exp_table,
    sigmoid_table,
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
    pooling,
    reset_function,
    spike_list,
    spread,
    step_arguments,
    unused,
)

# By name what they call; each is written where it is used.
_HELPERS = {
    "add_row": (
        """\
/* Add a row of weights, each 2^bits times: what one spike contributes. */
static void add_row(int32_t *restrict sums, const int8_t *restrict row, int32_t n, int32_t one)
{
    int32_t j;
    for (j = 0; j < n; j++) sums[j] += row[j] * one;
}""",
        (),
    ),
    "shifted": (
        """\
/* Divide by 2^bits, halves away from zero. */
static int64_t shifted(int64_t v, int bits)
{
    const int64_t half = bits > 0 ? (int64_t)1 << (bits - 1) : 0;
    return v < 0 ? -((half - v) >> bits) : (v + half) >> bits;
}""",
        (),
    ),
    "clipped": (
        """\
static int32_t clipped(int64_t v, int32_t low, int32_t high)
{
    return (int32_t)(v < low ? low : v > high ? high : v);
}""",
        (),
    ),
    "interpolated": (
        f"""\
static int32_t interpolated(const int16_t *table, int32_t at)
{{
    const int32_t part = at >> {PART_BITS}, rest = at & {2**PART_BITS - 1};
    return (table[part] * ({2**PART_BITS} - rest) + table[part + 1] * rest
            + {2 ** (PART_BITS - 1)}) >> {PART_BITS};
}}""",
        (),
    ),
    "apply_sigmoid": (
        f"""\
/* From 1 / 2^11 to 1 / 2^14; the table has the half above zero. */
static int32_t apply_sigmoid(int32_t v)
{{
    const int64_t size = v < 0 ? -(int64_t)v : v;
    const int32_t y = interpolated(sigmoid_table, clipped(size, 0, 32767));
    return v < 0 ? {2**SOFT_BITS} - y : y;
}}""",
        ("interpolated", "clipped", "sigmoid_table"),
    ),
    "apply_tanh": (
        f"""\
static int32_t apply_tanh(int32_t v)
{{
    return 2 * apply_sigmoid(clipped((int64_t)v * 2, -32767, 32767)) - {2**SOFT_BITS};
}}""",
        ("apply_sigmoid",),
    ),
    "apply_softmax": (
        f"""\
static void apply_softmax(int32_t *v, int32_t n)
{{
    int32_t top = v[0], j;
    int64_t total = 0;
    for (j = 1; j < n; j++)
        if (v[j] > top) top = v[j];
    for (j = 0; j < n; j++) {{
        v[j] = interpolated(exp_table, clipped((int64_t)top - v[j], 0, 32767));
        total += v[j];
    }}
    for (j = 0; j < n; j++) v[j] = (int32_t)(((int64_t)v[j] * {2**SOFT_BITS} + total / 2) / total);
}}""",
        ("interpolated", "clipped", "exp_table"),
    ),
}


def write(integers: Integers) -> Source:
    """Write one step in integers."""
    return _Writer(integers).source()


class _Writer:
    """Collects constants, members of the struct, functions and the lines of the step."""

    def __init__(self, integers: Integers) -> None:
        self.integers, self.plan = integers, integers.plan
        self.constants: dict[str, tuple[str, np.ndarray]] = {}
        self.fields: list[Field] = []
        self.used: list[str] = []
        self.functions: list[str] = []
        self.lines: list[str] = []
        self.resets: list[str] = []
        self.held: set[str] = set()
        self.inputs = {tensor.label for tensor in self.plan.inputs}
        self.places = {
            tensor.label: f"output_{index}"
            for index, tensor in enumerate(self.plan.outputs)
            if not tensor.spikes and tensor.label not in self.inputs
        }

    def source(self) -> Source:
        plan = self.plan
        for operation in self.integers.operations:
            self.operation(operation)
        for index, tensor in enumerate(plan.outputs):
            if self.places.get(tensor.label) != f"output_{index}":
                self.lines += ["", "/* output */"]
                self.copy(tensor, f"output_{index}")
        tables = {"sigmoid_table": sigmoid_table, "exp_table": exp_table}
        arrays = [array(kind, name, values) for name, (kind, values) in self.constants.items()]
        arrays += [array("int16_t", name, tables[name]()) for name in self.used if name in tables]
        helpers = [_HELPERS[name][0] for name in self.used if name in _HELPERS]
        loops = [
            f"int32_t {index};" for index in "ijk" if any(f"({index} = 0;" in x for x in self.lines)
        ]
        start = loops if any("net->" in line for line in self.lines) else [*loops, "(void)net;"]
        name = plan.name
        code = "\n\n".join(
            [
                f"/* {name}: one step in integers, written by snukeras; see model_int8.h. */",
                '#include "model_int8.h"\n\n#include <string.h>',
                *arrays,
                *helpers,
                *self.functions,
                reset_function(plan, self.resets),
                f"void {name}_step({step_arguments(plan, 'int16_t')})\n"
                f"{{\n{indented([*start, *self.lines])}\n}}",
            ]
        )
        order = sorted(self.fields, key=lambda field: -field.alignment)
        sizes = {"int8_t": 1, "int16_t": 2, "int32_t": 4}
        weights = sum(sizes[kind] * values.size for kind, values in self.constants.values())
        weights += sum(2 * (PARTS + 1) for name in self.used if name in tables)
        return Source(self.header(order), code + "\n", tuple(order), weights)

    def header(self, fields: list[Field]) -> str:
        """Return model_int8.h, with the bits of inputs and outputs."""
        plan, bits = self.plan, self.integers.bits
        big = plan.name.upper()
        told = [*ends(plan), "An end is an integer: real number = integer / 2^BITS."]
        lines = [f"#define {big}_{t.label.upper()}_BITS ({bits[t.label]})" for t in plan.inputs]
        lines += [
            f"#define {big}_OUTPUT_{index}_BITS ({bits[tensor.label]})"
            for index, tensor in enumerate(plan.outputs)
        ]
        text = header(plan, "int16_t", fields, "model_int8.h", told)
        struct = f"\nstruct {plan.name} {{"
        return text.replace(struct, "\n".join([*lines, struct]), 1)

    def use(self, name: str) -> str:
        """Let a helper be written, behind those that it calls; return its name."""
        for needed in _HELPERS[name][1] if name in _HELPERS else ():
            self.use(needed)
        if name not in self.used:
            self.used.append(name)
        return name

    def operation(self, operation: IntegerOperation) -> None:
        """Add the lines of an operation."""
        if self.lines:
            self.lines.append("")
        match operation:
            case IntegerUnits():
                self.units(operation)
            case IntegerNeurons():
                self.neurons(operation)
            case IntegerDense():
                self.dense(operation)
            case IntegerActivate():
                self.activate(operation)
            case IntegerMean():
                self.mean(operation)
            case IntegerPool():
                self.pool(operation)
            case IntegerCoding():
                self.coding(operation)

    def constant(self, kind: str, name: str, values: np.ndarray) -> str:
        """Keep a constant array; return how C calls it."""
        name = unused(f"{self.plan.name}_{name}", self.constants)
        self.constants[name] = (kind, values)
        return name

    def per_unit(self, name: str, values: np.ndarray, places: int) -> str:
        """Return the value of unit j in C: a number where all are equal, else from an array."""
        if np.all(values == values.flat[0]):
            return f"({int(values.flat[0])})" if values.flat[0] < 0 else str(int(values.flat[0]))
        index = "j" if places == 1 else f"j % {values.size}"
        return f"{self.constant('int32_t', name, values)}[{index}]"

    def numbers(self, tensor: Tensor) -> str:
        """Return where the numbers of a tensor are."""
        if tensor.label in self.inputs:
            return tensor.label
        return self.places.get(tensor.label, f"net->{tensor.label}_out")

    def buffer(self, tensor: Tensor, meaning: str) -> str:
        """Return where the numbers of a tensor are written."""
        if tensor.label not in self.places and tensor.label not in self.held:
            self.held.add(tensor.label)
            self.fields.append(Field("int16_t", f"{tensor.label}_out", tensor.size, meaning))
        return self.numbers(tensor)

    def spikes(self, tensor: Tensor, meaning: str) -> tuple[str, str]:
        """Add the members that hold the spikes of a tensor."""
        kind = index_type(tensor.size)
        self.fields.append(Field(kind, f"{tensor.label}_spikes", tensor.size, meaning))
        self.fields.append(Field(kind, f"{tensor.label}_count", None, "how many"))
        return spike_list(tensor)

    def add_product(self, scaled: Scaled, name: str, source: Tensor, sums: str) -> list[str]:
        """Return the lines that add the product with a source, all of one step."""
        self.use("add_row")
        product = scaled.product
        if isinstance(product, Convolution):
            self.functions.append(spread(f"{name}_spread", "int32_t", product, True, "add_row"))
        gain = 2**scaled.gain
        if source.spikes:
            spikes, count = spike_list(source)
            call = contribution(product, name, f"{spikes}[k]", sums, str(gain), "add_row")
            return [f"for (k = 0; k < (int32_t){count}; k++) {call}"]
        x = f"{self.numbers(source)}[i]"
        lines = [f"for (i = 0; i < {source.size}; i++) {{", f"    int32_t v = {x};"]
        if scaled.limit is not None and scaled.limit < 32767:
            lines += [
                f"    if (v > {scaled.limit}) v = {scaled.limit};",
                f"    if (v < -{scaled.limit}) v = -{scaled.limit};",
            ]
        if scaled.drop:
            lines.append(f"    v = (int32_t){self.use('shifted')}(v, {scaled.drop});")
        times = f"v * {gain}" if gain > 1 else "v"
        call = contribution(product, name, "i", sums, times, "add_row")
        return [*lines, f"    if (v != 0) {call}", "}"]

    def units(self, units: IntegerUnits) -> None:
        """Add a layer of units."""
        of, label = units.of, units.of.label
        size, places = of.target.size, of.product.places
        s = f"net->{label}_s"
        self.fields.append(Field("int32_t", f"{label}_s", size, f"potentials of {of.call}"))
        self.use("shifted"), self.use("clipped")
        decay = self.per_unit(f"{label}_decay", units.decay, places)
        threshold = self.per_unit(f"{label}_threshold", units.threshold, places)
        self.lines.append(f"/* {of.call}: {equation(of)} */")
        bias = ""
        if units.bias is not None:
            bias = " + " + self.per_unit(f"{label}_bias", units.bias, places)
        carried = f"(int32_t)shifted((int64_t){s}[j] * {decay}, 15)"
        if of.spiking:
            self.spikes(of.target, f"spikes of {of.call}")
            self.gate_of_spikes(units, s)
        else:
            self.fields.append(Field("int16_t", f"{label}_y", size, f"outputs of {of.call}"))
            self.places[of.target.label] = f"net->{label}_y"
            gate = self.soft_gate(units)
            inner = f"shifted((int64_t){s}[j] * {decay}, 15) * ({2**SOFT_BITS} - {gate})"
            carried = f"(int32_t)shifted({inner}, {SOFT_BITS})"
        self.lines.append(f"for (j = 0; j < {size}; j++) {s}[j] = {carried}{bias};")
        kernel = self.constant("int8_t", f"{label}_kernel", units.product.product.rows)
        self.lines += self.add_product(units.product, kernel, of.source, s)
        if units.loop is not None:
            loop = self.constant("int8_t", f"{label}_recurrent_kernel", units.loop.product.rows)
            self.lines += self.add_product(units.loop, loop, of.target, s)
        self.decide(units, s, threshold)

    def gate_of_spikes(self, units: IntegerUnits, s: str) -> None:
        """Add the lines that drop the potentials of units that spiked, or of their rivals too."""
        spikes, count = spike_list(units.of.target)
        if not units.of.inhibition:
            self.lines.append(f"for (k = 0; k < (int32_t){count}; k++) {s}[{spikes}[k]] = 0;")
            return
        n = len(units.scale)
        base = f"{spikes}[k] / {n} * {n} + j" if units.of.product.places > 1 else "j"
        self.lines += [
            f"for (k = 0; k < (int32_t){count}; k++) {{",
            f"    for (j = 0; j < {n}; j++) {s}[{base}] = 0;",
            "}",
        ]

    def soft_gate(self, units: IntegerUnits) -> str:
        """Return the gate of unit j."""
        of = units.of
        y = f"net->{of.label}_y"
        if not of.inhibition:
            return f"{y}[j]"
        n, places = len(units.scale), of.product.places
        gates = f"net->{of.label}_gate"
        meaning = f"largest outputs of {of.call}"
        self.fields.append(Field("int16_t", f"{of.label}_gate", places, meaning))
        self.lines += largest_lines(gates, y, n, places)
        return f"{gates}[j / {n}]"

    def decide(self, units: IntegerUnits, s: str, threshold: str) -> None:
        """Add the lines from the sums to the outputs."""
        of, size = units.of, units.of.target.size
        low = 0 if of.activation.name == "relu" else -LARGEST
        body = [f"    {s}[j] = clipped({s}[j], {low}, {LARGEST});"]
        if units.soft is None:
            spikes, count = spike_list(of.target)
            self.lines.append(f"{count} = 0;")
            kind = index_type(size)
            body.append(f"    if ({s}[j] > {threshold}) {spikes}[{count}++] = ({kind})j;")
        else:
            z = self.rescaled(f"((int64_t){s}[j] - {threshold})", of.label, units.soft,
                              of.product.places)  # fmt: skip
            self.use("apply_sigmoid")
            body.append(f"    net->{of.label}_y[j] = (int16_t)apply_sigmoid({z});")
        self.lines += [f"for (j = 0; j < {size}; j++) {{", *body, "}"]

    def rescaled(self, sums: str, label: str, rescale: Rescale, places: int) -> str:
        """Return sums of unit j times the factor of its column."""
        self.use("shifted"), self.use("clipped")
        factor = self.per_unit(f"{label}_factor", rescale.factor, places)
        return f"clipped(shifted({sums} * {factor}, {rescale.right}), {-LARGEST}, {LARGEST})"

    def neurons(self, neurons: IntegerNeurons) -> None:
        """Add a LIF layer."""
        of, label, size = neurons.of, neurons.of.label, neurons.of.target.size
        v = f"net->{label}_v"
        self.fields.append(Field("int32_t", f"{label}_v", size, f"potentials of {of.call}"))
        self.use("shifted"), self.use("clipped")
        if np.any(neurons.start):
            start = self.per_unit(f"{label}_start", neurons.start, 1)
            self.resets.append(f"for (j = 0; j < {size}; j++) {v}[j] = {start};")
        self.lines.append(f"/* {of.call}: {lif_equation(of)} */")
        if of.target.spikes:
            self.spikes(of.target, f"spikes of {of.call}")
        else:
            self.places[of.target.label] = f"net->{label}_y"
            self.fields.append(Field("int16_t", f"{label}_y", size, f"outputs of {of.call}"))
        if of.delayed:
            self.lines += kept_outputs(of, self.fields, "int16_t")
        x = self.current(neurons)
        decay = self.per_unit(f"{label}_decay", neurons.decay, 1)
        drive = self.rescaled(f"(int64_t){x}", f"{label}_gain", neurons.drive, 1)
        left = f"shifted((int64_t){v}[j] * {decay}, 15) + {drive}"
        if np.any(neurons.bias):
            left += f" + {self.per_unit(f'{label}_bias', neurons.bias, 1)}"
        low, high = -LARGEST, LARGEST
        subtract = ""
        if neurons.subtracted is not None:
            taken = self.per_unit(f"{label}_reset_by", neurons.subtracted, 1)
            subtract = f"{v}[j] -= {taken};"
            if of.several:
                what = f"{v}[j] - (int64_t){taken} * net->{label}_y[j]"
                subtract = f"{v}[j] = clipped({what}, {low}, {high});"
        self.lines += leaked(of, f"{v}[j] = clipped({left}, {low}, {high});", subtract, "0")
        self.fire(neurons)

    def current(self, neurons: IntegerNeurons) -> str:
        """Add the lines of what goes into the neurons; return that of neuron j."""
        of, label, size = neurons.of, neurons.of.label, neurons.of.target.size
        source = of.source
        if of.loop is None and neurons.slow is None and not source.spikes:
            return f"{self.numbers(source)}[j]"
        i = f"net->{label}_i"
        self.fields.append(Field("int32_t", f"{label}_i", size, f"currents of {of.call}"))
        left, more = "0", ""
        if neurons.slow is not None:
            slow = self.per_unit(f"{label}_synaptic_decay", neurons.slow, 1)
            left = f"(int32_t)shifted((int64_t){i}[j] * {slow}, 15)"
        if of.loop is not None and neurons.loop is not None and neurons.loop_out is not None:
            sums = f"net->{label}_sums"
            self.fields.append(Field("int32_t", f"{label}_sums", size, f"sums of {of.call}"))
            self.lines.append(f"for (j = 0; j < {size}; j++) {sums}[j] = 0;")
            kernel = self.constant("int8_t", f"{label}_recurrent_kernel", neurons.loop)
            product = Scaled(of.loop.with_rows(neurons.loop), None, 0, 0)
            self.lines += self.add_product(product, kernel, of.target, sums)
            out = self.rescaled(f"(int64_t){sums}[j]", f"{label}_loop", neurons.loop_out, 1)
            more = f" + {out}"
        one = 2**neurons.source_gain
        if source.spikes:
            spikes, count = spike_list(source)
            self.lines += [
                f"for (j = 0; j < {size}; j++) {i}[j] = {left};",
                f"for (k = 0; k < (int32_t){count}; k++) {i}[{spikes}[k]] += {one};",
            ]
            whole = f"(int64_t){i}[j]{more}"
        else:
            whole = f"(int64_t){left} + {self.numbers(source)}[j] * {one}{more}"
        self.lines.append(
            f"for (j = 0; j < {size}; j++) {i}[j] = clipped({whole}, {-LARGEST}, {LARGEST});"
        )
        return f"{i}[j]"

    def fire(self, neurons: IntegerNeurons) -> None:
        """Add the lines from potentials to outputs."""
        of, label, size = neurons.of, neurons.of.label, neurons.of.target.size
        v, y = f"net->{label}_v[j]", f"net->{label}_{'pending' if of.delayed else 'y'}"
        if neurons.threshold is None:
            shift = neurons.shift
            z = f"shifted({v}, {shift})" if shift > 0 else f"(int64_t){v} * {2**-shift}"
            self.lines.append(
                f"for (j = 0; j < {size}; j++) {y}[j] = (int16_t)clipped({z}, -32767, 32767);"
            )
            return
        threshold = self.per_unit(f"{label}_threshold", neurons.threshold, 1)
        if of.several:
            count = f"(int16_t)clipped({v} / {threshold}, 0, {neurons.most})"
            self.lines.append(f"for (j = 0; j < {size}; j++) {y}[j] = {count};")
            return
        self.lines += found_spikes(of, f"{v} > {threshold}")

    def dense(self, dense: IntegerDense) -> None:
        """Add a Dense layer."""
        of, label = dense.of, dense.of.label
        size, places = of.target.size, of.product.places
        self.fields.append(Field("int32_t", f"{label}_sums", size, f"sums of {of.call}"))
        sums = f"net->{label}_sums"
        self.lines.append(f"/* {of.call} */")
        bias = "0"
        if dense.bias is not None:
            bias = self.per_unit(f"{label}_bias", dense.bias, places)
        self.lines.append(f"for (j = 0; j < {size}; j++) {sums}[j] = {bias};")
        kernel = self.constant("int8_t", f"{label}_kernel", dense.product.product.rows)
        self.lines += self.add_product(dense.product, kernel, of.source, sums)
        z = self.rescaled(f"(int64_t){sums}[j]", label, dense.out, places)
        self.put_out(of.activation, of.target, of.call, sums, z)

    def put_out(self, activation: Activation, target: Tensor, call: str, sums: str, z: str) -> None:
        """Add the lines from the input z of an activation to its output.

        Args:
            activation: The activation.
            target: What is put out.
            call: The layer.
            sums: 32-bit integers that may be used on the way, for softmax.
            z: Element j of the input, in C.
        """
        out, size = self.buffer(target, f"outputs of {call}"), target.size
        if activation.name == "softmax":
            self.use("apply_softmax")
            n = target.shape[-1]
            self.lines += [
                f"for (j = 0; j < {size}; j++) {sums}[j] = {z};",
                f"for (i = 0; i < {size // n}; i++) apply_softmax({sums} + i * {n}, {n});",
                f"for (j = 0; j < {size}; j++) {out}[j] = (int16_t){sums}[j];",
            ]
            return
        if activation.name in ("linear", "relu"):
            self.use("clipped")
            low = 0 if activation.name == "relu" else -32767
            z = f"clipped({z}, {low}, 32767)"
        else:
            z = f"{self.use(f'apply_{activation.name}')}({z})"
        self.lines.append(f"for (j = 0; j < {size}; j++) {out}[j] = (int16_t){z};")

    def activate(self, activate: IntegerActivate) -> None:
        """Add an activation of its own."""
        of = activate.of
        self.lines.append(f"/* {of.call} */")
        source, name = of.source, of.activation.name
        sums = ""
        if source.spikes or name == "softmax":
            sums = f"net->{of.label}_sums"
            meaning = f"inputs of {of.call}"
            self.fields.append(Field("int32_t", f"{of.label}_sums", source.size, meaning))
            self.copy(source, sums)
        x = f"{sums or self.numbers(source)}[j]"
        shift = TABLE_BITS - activate.source_bits
        if name not in ("linear", "relu") and shift > 0:
            x = f"{x} * {2**shift}"
        elif name not in ("linear", "relu") and shift < 0:
            x = f"(int32_t){self.use('shifted')}({x}, {-shift})"
        self.put_out(of.activation, of.target, of.call, sums, x)

    def copy(self, source: Tensor, z: str) -> None:
        """Add the lines that write a tensor as numbers."""
        if source.spikes:
            spikes, count = spike_list(source)
            self.lines.append(f"for (j = 0; j < {source.size}; j++) {z}[j] = 0;")
            self.lines.append(f"for (k = 0; k < (int32_t){count}; k++) {z}[{spikes}[k]] = 1;")
        else:
            x = self.numbers(source)
            self.lines.append(f"for (j = 0; j < {source.size}; j++) {z}[j] = {x}[j];")

    def mean(self, mean: IntegerMean) -> None:
        """Add the mean of the steps so far."""
        of, size = mean.of, mean.of.source.size
        total, count = f"net->{of.label}_total", f"net->{of.label}_steps"
        self.fields.append(Field("int64_t", f"{of.label}_total", size, f"sums of {of.call}"))
        self.fields.append(Field("uint32_t", f"{of.label}_steps", None, "steps so far"))
        z = self.buffer(of.target, f"outputs of {of.call}")
        self.lines.append(f"/* {of.call}: the mean of the steps so far */")
        if of.source.spikes:
            spikes, n = spike_list(of.source)
            add = f"{total}[{spikes}[k]] += {2**mean.gain};"
            self.lines.append(f"for (k = 0; k < (int32_t){n}; k++) {add}")
        else:
            x = self.numbers(of.source)
            self.lines.append(f"for (j = 0; j < {size}; j++) {total}[j] += {x}[j];")
        self.lines += [
            f"{count}++;",
            f"for (j = 0; j < {size}; j++) {{",
            f"    const int64_t half = {count} / 2;",
            f"    const int64_t sum = {total}[j] < 0 ? {total}[j] - half : {total}[j] + half;",
            f"    {z}[j] = (int16_t)(sum / {count});",
            "}",
        ]

    def pool(self, pool: IntegerPool) -> None:
        """Add the largest or the mean of windows of maps."""
        of = pool.of
        z, x = self.buffer(of.target, f"outputs of {of.call}"), self.numbers(of.source)
        if of.source.spikes:
            x = f"net->{of.label}_in"
            meaning = f"inputs of {of.call}"
            self.fields.append(Field("int16_t", f"{of.label}_in", of.source.size, meaning))
            self.copy(of.source, x)
        name = f"{of.label}_pool"
        self.functions.append(pooling(of, name, "int16_t", "int64_t", 2**pool.gain))
        self.lines.append(f"{name}({x}, {z});")

    def coding(self, coding: IntegerCoding) -> None:
        """Add the spikes of an image."""
        of = coding.of
        steps, size = of.thresholds.shape
        spikes, count = self.spikes(of.target, f"spikes of {of.call}")
        step = f"net->{of.label}_step"
        self.fields.append(Field("uint32_t", f"{of.label}_step", None, "step of the coding"))
        thresholds = self.constant("int16_t", f"{of.label}_thresholds", coding.thresholds)
        x = self.numbers(of.source)
        kind = index_type(size)
        self.lines += [
            f"/* {of.call}: a spike where the input exceeds the threshold of the step */",
            f"{count} = 0;",
            f"for (j = 0; j < {size}; j++)",
            f"    if ({x}[j] > {thresholds}[{step} * {size} + (uint32_t)j])"
            f" {spikes}[{count}++] = ({kind})j;",
            f"{step} = ({step} + 1) % {steps};",
        ]

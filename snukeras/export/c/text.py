"""Pieces of C text that float and integer sources share."""

import dataclasses
from collections.abc import Container, Iterable

import numpy as np

from snukeras.export.c.plan import Convolution, Neurons, Plan, Pool, Product, Tensor, Units

WIDTH = 96


def index_type(size: int) -> str:
    """Return the smallest type that holds an index and a count of so many."""
    return "uint16_t" if size <= 65535 else "uint32_t"


def number(value: float) -> str:
    """Return a float32 as C text that gives the same float32 back."""
    text = f"{np.float32(value):.9g}"
    return text + ("f" if "." in text or "e" in text else ".0f")


def unused(name: str, taken: Container[str]) -> str:
    """Return a name that is not taken: two layers can lead to one."""
    found, number = name, 1
    while found in taken:
        number += 1
        found = f"{name}_{number}"
    return found


def array(kind: str, name: str, values: np.ndarray) -> str:
    """Return the definition of a constant array."""
    if kind == "float":
        parts = [number(value) for value in values.ravel()]
    else:
        parts = [str(int(value)) for value in values.ravel()]
    lines, line = [], "   "
    for part in parts:
        if len(line) + len(part) + 2 > WIDTH:
            lines.append(line)
            line = "   "
        line += f" {part},"
    body = "\n".join([*lines, line])
    return f"static const {kind} {name}[{values.size}] = {{\n{body}\n}};"


def indented(lines: Iterable[str], depth: int = 1) -> str:
    """Return lines as a block."""
    return "\n".join("    " * depth + line if line else "" for line in lines)


@dataclasses.dataclass(frozen=True)
class Field:
    """A member of the struct: its type, name, length (None for a number), and what it is."""

    kind: str
    name: str
    length: int | None
    meaning: str

    @property
    def bytes(self) -> int:
        """The size of the member."""
        size = {"float": 4, "int8_t": 1, "int16_t": 2, "uint16_t": 2, "int64_t": 8}.get(
            self.kind, 4
        )
        return size * (1 if self.length is None else self.length)

    @property
    def alignment(self) -> int:
        """The size of an element."""
        return self.bytes // (1 if self.length is None else self.length)

    def declaration(self) -> str:
        """Return its line in the struct."""
        extent = "" if self.length is None else f"[{self.length}]"
        return f"{self.kind} {self.name}{extent}; /* {self.meaning} */"


def struct_bytes(fields: Iterable[Field]) -> int:
    """Return the size of a struct of members that come by falling alignment."""
    fields = list(fields)
    total = sum(field.bytes for field in fields)
    widest = max((field.alignment for field in fields), default=1)
    return max(-(-total // widest) * widest, 1)


def spike_list(tensor: Tensor) -> tuple[str, str]:
    """Return the members that hold which places of a tensor spike, and how many."""
    return f"net->{tensor.label}_spikes", f"net->{tensor.label}_count"


def spread(name: str, kind: str, product: Convolution, scaled: bool, add: str) -> str:
    """Return a function that adds what one element of a map contributes to a convolution.

    Args:
        name: Of the function; the kernel is NAME without `_spread`.
        kind: Type of the sums.
        product: The convolution.
        scaled: Whether the element has a value, else it is a spike.
        add: The call that adds a row: "add_row" or the like.
    """
    height, width, channels, filters = product.kernel.shape
    (sh, sw), (bh, bw), (dh, dw) = product.strides, product.before, product.dilation
    value = f", {kind} value" if scaled else ""
    passed = ", value" if scaled else ""
    lines = [
        f"const int32_t channel = element % {channels};",
        f"const int32_t column = element / {channels} % {product.source[1]};",
        f"const int32_t row = element / {channels * product.source[1]};",
        "int32_t i, j;",
        f"for (i = 0; i < {height}; i++) {{",
        f"    const int32_t y = row + {bh} - i * {dh};",
        f"    if (y < 0 || y % {sh} != 0 || y / {sh} >= {product.target[0]}) continue;",
        f"    for (j = 0; j < {width}; j++) {{",
        f"        const int32_t x = column + {bw} - j * {dw};",
        f"        if (x < 0 || x % {sw} != 0 || x / {sw} >= {product.target[1]}) continue;",
        f"        {add}(sums + (y / {sh} * {product.target[1]} + x / {sw}) * {filters},",
        f"            {name.removesuffix('_spread')}"
        f" + ((i * {width} + j) * {channels} + channel) * {filters}, {filters}{passed});",
        "    }",
        "}",
    ]
    return f"static void {name}({kind} *sums, int32_t element{value})\n{{\n{indented(lines)}\n}}"


def contribution(
    product: Product, name: str, element: str, sums: str, scaled: str, add: str
) -> str:
    """Return the call that adds what one element contributes to the sums of a product.

    Args:
        product: The product.
        name: Of its kernel.
        element: The place of the element, in C.
        sums: The sums, in C.
        scaled: The value of the element, in C, or "" for a spike.
        add: The function that adds a row.
    """
    value = f", {scaled}" if scaled else ""
    if isinstance(product, Convolution):
        return f"{name}_spread({sums}, {element}{value});"
    rows, columns = product.rows.shape
    if product.places == 1:
        return f"{add}({sums}, {name} + {element} * {columns}, {columns}{value});"
    at = f"{sums} + ({element}) / {rows} * {columns}"
    return f"{add}({at}, {name} + ({element}) % {rows} * {columns}, {columns}{value});"


def equation(units: Units) -> str:
    """Return the equation of a layer of units in words of C."""
    star = "*" if isinstance(units.product, Convolution) else ""
    terms = [f"x {star}W".replace("  ", " ")]
    terms += ["c"] if units.bias is not None else []
    terms += [f"y[t-1] {star}H"] if units.loop is not None else []
    gate = "max(y[t-1])" if units.inhibition else "y[t-1]"
    terms.append(f"decay * s[t-1] * (1 - {gate})")
    g = units.activation.name
    inner = " + ".join(terms)
    s = inner if g == "linear" else f"{g}({inner})"
    y = "1 if s > threshold else 0" if units.spiking else "sigmoid(s - threshold)"
    return f"s = {s}; y = {y}"


def step_arguments(plan: Plan, kind: str) -> str:
    """Return the arguments of the step."""
    given = [f"const {kind} *{tensor.label}" for tensor in plan.inputs]
    wanted = [f"{kind} *output_{number}" for number in range(len(plan.outputs))]
    return ", ".join([f"struct {plan.name} *net", *given, *wanted])


def largest_lines(gates: str, y: str, n: int, places: int) -> list[str]:
    """Return the lines that put the largest of each `n` outputs of `y` into `gates`."""
    return [
        f"for (i = 0; i < {places}; i++) {{",
        f"    {gates}[i] = {y}[i * {n}];",
        f"    for (j = 1; j < {n}; j++)",
        f"        if ({y}[i * {n} + j] > {gates}[i]) {gates}[i] = {y}[i * {n} + j];",
        "}",
    ]


def reset_function(plan: Plan, resets: list[str]) -> str:
    """Return the function that puts a network at its start; `resets` set what is not zero."""
    lines = ["memset(net, 0, sizeof *net);", *resets]
    if resets:
        lines = ["int32_t j;", *lines]
    return f"void {plan.name}_reset(struct {plan.name} *net)\n{{\n{indented(lines)}\n}}"


def lif_equation(neurons: Neurons) -> str:
    """Return the equation of a LIF layer in words of C."""
    i = "x"
    if neurons.loop is not None:
        i += " + y[t-1] H"
    if neurons.synaptic_decay is not None:
        i += " + synaptic_decay * i[t-1]"
    named = "" if i == "x" else f"i = {i}; "
    drive = "x" if i == "x" else "i"
    drive = drive if np.all(neurons.gain == 1.0) else f"gain * {drive}"
    drive += " + bias" if np.any(neurons.bias) else ""
    v = {
        "subtract": f"decay * v[t-1] + {drive} - reset_by * y[t-1]",
        "zero": f"decay * v[t-1] * (1 - y[t-1]) + {drive}",
        "silence": f"(decay * v[t-1] + {drive}) * (1 - y[t-1])",
        None: f"decay * v[t-1] + {drive}",
    }[neurons.reset]
    fires = "y = 1 if v > threshold else 0"
    if neurons.several:
        fires = "y = how often v holds the threshold"
    if neurons.threshold is None:
        fires = "y = v"
    late = ", put out a step late" if neurons.delayed else ""
    return f"{named}v = {v}; {fires}{late}"


def kept_outputs(neurons: Neurons, fields: list[Field], kind: str) -> list[str]:
    """Return the lines that put out what the step before kept, with the members that keep it.

    Args:
        neurons: A LIF layer with outputs a step late.
        fields: Members of the struct, to which the others are added.
        kind: Type of outputs that are counts.
    """
    label, size = neurons.label, neurons.target.size
    later, meaning = f"net->{label}_pending", f"of {neurons.call}, put out in the next step"
    if not neurons.target.spikes:
        fields.append(Field(kind, f"{label}_pending", size, f"outputs {meaning}"))
        return [f"for (j = 0; j < {size}; j++) net->{label}_y[j] = {later}[j];"]
    index = index_type(size)
    fields.append(Field(index, f"{label}_pending", size, f"spikes {meaning}"))
    fields.append(Field(index, f"{label}_waiting", None, "how many"))
    spikes, count = spike_list(neurons.target)
    return [
        f"{count} = net->{label}_waiting;",
        f"for (k = 0; k < (int32_t){count}; k++) {spikes}[k] = {later}[k];",
    ]


def leaked(neurons: Neurons, leak: str, subtract: str, zero: str) -> list[str]:
    """Return the lines of the leak, the drive and the reset.

    Args:
        neurons: The LIF layer.
        leak: The statement that leaks and drives the potential of neuron j.
        subtract: The statement that takes away what the last output of neuron j asks for.
        zero: A potential of zero, in C.
    """
    size, v = neurons.target.size, f"net->{neurons.label}_v"
    loop = f"for (j = 0; j < {size}; j++) {leak}"
    if neurons.reset is None:
        return [loop]
    if not neurons.target.spikes:  # counts, which are reset by subtraction alone
        return [loop, f"for (j = 0; j < {size}; j++) {subtract}"]
    spikes, count = spike_list(neurons.target)
    each = f"for (k = 0; k < (int32_t){count}; k++)"
    if neurons.reset == "subtract":
        return [loop, f"{each} {subtract.replace('[j]', f'[{spikes}[k]]')}"]
    drop = f"{each} {v}[{spikes}[k]] = {zero};"
    return [drop, loop] if neurons.reset == "zero" else [loop, drop]


def found_spikes(neurons: Neurons, fires: str) -> list[str]:
    """Return the lines that list the neurons j that fire, where `fires` is the condition in C."""
    label, size = neurons.label, neurons.target.size
    spikes, count = spike_list(neurons.target)
    if neurons.delayed:
        spikes, count = f"net->{label}_pending", f"net->{label}_waiting"
    return [
        f"{count} = 0;",
        f"for (j = 0; j < {size}; j++)",
        f"    if ({fires}) {spikes}[{count}++] = ({index_type(size)})j;",
    ]


def pooling(pool: Pool, name: str, kind: str, total: str, gain: int = 1) -> str:
    """Return the function that pools the maps of a step.

    Args:
        pool: The operation.
        name: Of the function.
        kind: Type of the numbers.
        total: Type of their sums.
        gain: What an element counts in a mean.
    """
    (height, width), (rows, columns) = pool.maps
    (kh, kw), (sh, sw), (bh, bw) = pool.window, pool.strides, pool.before
    if pool.largest:
        take, left = "if (n == 0 || x[at] > found) found = x[at];", "found"
    elif total == "float":
        take, left = "found += x[at];", "found / (float)n"
    else:
        take = "found += x[at];" if gain == 1 else f"found += x[at] * {gain};"
        left = "(found < 0 ? found - n / 2 : found + n / 2) / n"
    lines = [
        f"/* {pool.call}: the {'largest' if pool.largest else 'mean'} of each window */",
        f"static void {name}(const {kind} *x, {kind} *y)",
        "{",
        "    int32_t row, column, channel, i, j;",
        f"    for (row = 0; row < {rows}; row++)",
        f"    for (column = 0; column < {columns}; column++)",
        f"    for (channel = 0; channel < {pool.channels}; channel++) {{",
        f"        {total} found = 0;",
        "        int32_t n = 0;",
        f"        for (i = row * {sh} - {bh}; i < row * {sh} - {bh} + {kh}; i++)",
        f"        for (j = column * {sw} - {bw}; j < column * {sw} - {bw} + {kw}; j++) {{",
        f"            const int32_t at = (i * {width} + j) * {pool.channels} + channel;",
        f"            if (i < 0 || i >= {height} || j < 0 || j >= {width}) continue;",
        f"            {take}",
        "            n++;",
        "        }",
        f"        y[(row * {columns} + column) * {pool.channels} + channel] = ({kind})({left});",
        "    }",
        "}",
    ]
    return "\n".join(lines)

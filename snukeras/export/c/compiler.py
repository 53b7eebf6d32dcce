"""Compile the C of an export on this machine, run it on arrays, and measure its size."""

import dataclasses
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from snukeras.export.c.plan import Plan, Tensor

FLAGS = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic")
_SECONDS = 600


class CompileError(Exception):
    """The compiler refuses the code, or the program ends with an error."""


def find() -> str | None:
    """Return the C compiler of this machine: that of CC, or cc, gcc or clang; None without one."""
    asked = os.environ.get("CC")
    for name in (asked,) if asked else ("cc", "gcc", "clang"):
        if name and (path := shutil.which(name)):
            return path
    return None


class Program:
    """A model compiled with a program around it that runs it on sequences.

    Args:
        text: The C of the model.
        header: Its header, and the header's name.
        plan: Its plan.
        kind: Type of inputs and outputs: "float" or "int16_t".
        traced: Tensors between operations that are wanted as well.
        place: Folder for what is compiled.

    Raises:
        CompileError: There is no compiler, or it refuses the code.
    """

    def __init__(self, text: str, header: tuple[str, str], plan: Plan, kind: str,
                 traced: Sequence[Tensor], place: str | Path) -> None:  # fmt: skip
        compiler = find()
        if compiler is None:
            raise CompileError("there is no C compiler")
        self.plan, self.traced = plan, traced
        self.dtype = {"float": "float32", "int16_t": "int16"}[kind]
        place = Path(place)
        self.binary = place / f"program_{kind}"
        (place / "model.inc").write_text(text, encoding="utf-8")
        (place / header[1]).write_text(header[0], encoding="utf-8")
        source = place / "program.c"
        source.write_text(_driver(plan, kind, traced), encoding="utf-8")
        _call([compiler, *FLAGS, "-O2", str(source), "-o", str(self.binary), "-lm"])

    def run(self, feeds: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Run sequences, each from a reset.

        Args:
            feeds: For each input (batch, steps, ...).

        Returns:
            Outputs and traced tensors, each (batch, steps, size).

        Raises:
            CompileError: The program ends with an error.
        """
        batch, steps = feeds[0].shape[:2]
        joined = np.concatenate([feed.reshape(batch, steps, -1) for feed in feeds], axis=-1)
        given = np.ascontiguousarray(joined, self.dtype).tobytes()
        found = np.frombuffer(_call([str(self.binary), str(batch), str(steps)], given), self.dtype)
        sizes = [tensor.size for tensor in (*self.plan.outputs, *self.traced)]
        if found.size != batch * steps * sum(sizes):
            raise CompileError("the program wrote something else than its outputs")
        return np.split(found.reshape(batch, steps, -1), np.cumsum(sizes)[:-1], axis=-1)


def _call(arguments: list[str], given: bytes = b"") -> bytes:
    try:
        done = subprocess.run(
            arguments, input=given, capture_output=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CompileError(f"{Path(arguments[0]).name}: {error}") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        wrong = next((line for line in said if "error" in line), (said or ["an error"])[0])
        raise CompileError(f"{Path(arguments[0]).name}: {wrong[-300:]}")
    return done.stdout


def _driver(plan: Plan, kind: str, traced: Sequence[Tensor]) -> str:
    """Return a program that reads all inputs as binary and writes what is wanted."""
    name = plan.name
    inputs = sum(tensor.size for tensor in plan.inputs)
    outputs = sum(tensor.size for tensor in plan.outputs)
    widest = max((tensor.size for tensor in traced), default=1)
    starts = np.cumsum([0, *(tensor.size for tensor in plan.inputs)])
    ends = np.cumsum([0, *(tensor.size for tensor in plan.outputs)])
    arguments = ["&net", *(f"x + {start}" for start in starts[:-1])]
    arguments += [f"y + {end}" for end in ends[:-1]]
    lines = [line for tensor in traced for line in _shown(plan, tensor)]
    body = "\n".join(f"            {line}" for line in lines)
    return f"""\
#include "model.inc"
#include <stdio.h>
#include <stdlib.h>

static struct {name} net;
static {kind} x[{inputs}], y[{outputs}], seen[{widest}];

int main(int count, char **given)
{{
    long sequence, step, steps;
    if (count != 3) return 1;
    steps = atol(given[2]);
    for (sequence = 0; sequence < atol(given[1]); sequence++) {{
        {name}_reset(&net);
        for (step = 0; step < steps; step++) {{
            if (fread(x, sizeof x, 1, stdin) != 1) return 1;
            {name}_step({", ".join(arguments)});
            fwrite(y, sizeof y, 1, stdout);
            seen[0] = 0;
{body}
        }}
    }}
    return 0;
}}
"""


def _shown(plan: Plan, tensor: Tensor) -> list[str]:
    """Return the lines that write a tensor of the last step."""
    if tensor.label in {each.label for each in plan.inputs}:
        return [f"fwrite({_input(plan, tensor)}, sizeof *x, {tensor.size}, stdout);"]
    if not tensor.spikes:
        part = "y" if tensor.label in {units.label for units in plan.units} else "out"
        for index, output in enumerate(plan.outputs):
            if output.label == tensor.label and part == "out":
                start = sum(each.size for each in plan.outputs[:index])
                return [f"fwrite(y + {start}, sizeof *y, {tensor.size}, stdout);"]
        return [f"fwrite(net.{tensor.label}_{part}, sizeof *y, {tensor.size}, stdout);"]
    return [
        "{",
        "    int32_t k;",
        f"    for (k = 0; k < {tensor.size}; k++) seen[k] = 0;",
        f"    for (k = 0; k < (int32_t)net.{tensor.label}_count; k++)"
        f" seen[net.{tensor.label}_spikes[k]] = 1;",
        f"    fwrite(seen, sizeof *seen, {tensor.size}, stdout);",
        "}",
    ]


def _input(plan: Plan, tensor: Tensor) -> str:
    start = 0
    for each in plan.inputs:
        if each.label == tensor.label:
            break
        start += each.size
    return f"x + {start}"


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Bytes of a compiled model: instructions, constants, and the struct."""

    code: int
    constants: int
    ram: int


def measure(text: str, header: tuple[str, str], plan: Plan) -> Sizes:
    """Compile a model for size on this machine and return its bytes.

    Args:
        text: The C of the model.
        header: Its header, and the header's name.
        plan: Its plan.

    Raises:
        CompileError: There is no compiler, it refuses the code, or gives no sizes.
    """
    compiler, size = find(), shutil.which("size")
    if compiler is None or size is None:
        raise CompileError(f"there is no {'program size' if compiler else 'C compiler'}")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / header[1]).write_text(header[0], encoding="utf-8")
        (place / "model.c").write_text(text, encoding="utf-8")
        source = place / "sizes.c"
        source.write_text(
            f'#include "{header[1]}"\n#include <stdio.h>\n'
            f'int main(void) {{ printf("%lu", (unsigned long)sizeof(struct {plan.name}));'
            " return 0; }\n",
            encoding="utf-8",
        )
        _call([compiler, "-std=c99", str(source), "-o", str(place / "sizes")])
        ram = int(_call([str(place / "sizes")]))
        compiled = str(place / "model.o")
        _call([compiler, *FLAGS, "-Os", "-c", str(place / "model.c"), "-o", compiled])
        listing = _call([size, "-A", compiled]).decode()
    code = constants = 0
    for section, count in re.findall(r"^(\.\S+)\s+(\d+)", listing, re.MULTILINE):
        if section.startswith(".text"):
            code += int(count)
        elif section.startswith((".rodata", ".data.rel.ro")):
            constants += int(count)
    return Sizes(code, constants, ram)

"""Write main.c, which reads a sequence as text, and the sequence that it can be tried on."""

from snukeras.export.c.plan import Plan

_MAIN = """\
/* Run {name} on a sequence: one step a line, its numbers separated by blanks or commas.
 *
 *     cc -std=c99 -O3 main.c model.c -lm -o run && ./run < sequence.csv
{second} *
 * It prints the outputs of each step, a step a line; expected.csv has those of Keras.
 */
{include}
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INPUTS ({inputs})
#define OUTPUTS ({outputs})

static struct {name} net;
static {kind} x[INPUTS], y[OUTPUTS];
static char line[INPUTS * 32 + 64];
{helpers}
int main(void)
{{
    long number = 0;
    int i;
    {name}_reset(&net);
    while (fgets(line, sizeof line, stdin) != NULL) {{
        char *rest = line, *end;
        number++;
        if (line[strspn(line, " \\t\\r\\n")] == '\\0') continue;
        for (i = 0; i < INPUTS; i++) {{
            const double value = strtod(rest, &end);
            if (end == rest) break;
            x[i] = {convert};
            rest = end + strspn(end, " \\t,;");
        }}
        if (i < INPUTS || rest[strspn(rest, "\\r\\n")] != '\\0') {{
            fprintf(stderr, "line %ld does not hold %d numbers\\n", number, INPUTS);
            return 1;
        }}
        {name}_step({arguments});
        for (i = 0; i < OUTPUTS; i++) printf({show}, i + 1 < OUTPUTS ? ',' : '\\n');
    }}
    return 0;
}}
"""
_SECOND = """\
 *     cc -std=c99 -O3 -DINT8 main.c model_int8.c -o run && ./run < sequence.csv
"""
_FIXED = """
/* The real number as a fixed-point number; on a microcontroller the sensor gives such. */
static int16_t fixed(double value, int bits)
{
    for (; bits > 0; bits--) value *= 2;
    for (; bits < 0; bits++) value /= 2;
    value += value < 0 ? -0.5 : 0.5;
    return (int16_t)(value > 32767 ? 32767 : value < -32767 ? -32767 : value);
}

static double real(int16_t value, int bits)
{
    double found = value;
    for (; bits > 0; bits--) found /= 2;
    for (; bits < 0; bits++) found *= 2;
    return found;
}
"""


def write(plan: Plan, integers: bool) -> str:
    """Return main.c.

    Args:
        plan: The plan.
        integers: Whether there is model_int8.c as well.
    """
    name, big = plan.name, plan.name.upper()
    inputs = [f"{big}_{tensor.label.upper()}_SIZE" for tensor in plan.inputs]
    outputs = [f"{big}_OUTPUT_{index}_SIZE" for index in range(len(plan.outputs))]
    arguments = ["&net", *_starts("x", inputs), *_starts("y", outputs)]
    float_type, convert, show = "float", "(float)value", '"%.9g%c", (double)y[i]'
    helpers, include, second = "", '#include "model.h"', ""
    if integers:
        second = _SECOND
        include = '#ifdef INT8\n#include "model_int8.h"\n#else\n#include "model.h"\n#endif\n'
        float_type, convert, show = "number", "NUMBER(value, i)", '"%.9g%c", REAL(y[i], i)'
        bits_in = _bits("i", inputs, [f"{big}_{t.label.upper()}_BITS" for t in plan.inputs])
        bits_out = _bits("i", outputs, [f"{big}_OUTPUT_{i}_BITS" for i in range(len(outputs))])
        helpers = f"#ifdef INT8{_FIXED}#endif\n"
        include += (
            "\n#ifdef INT8\ntypedef int16_t number;\n"
            f"#define NUMBER(value, i) fixed(value, {bits_in})\n"
            f"#define REAL(value, i) real(value, {bits_out})\n"
            "#else\ntypedef float number;\n"
            "#define NUMBER(value, i) ((float)(value))\n"
            "#define REAL(value, i) ((double)(value))\n#endif\n"
        )
    return _MAIN.format(
        name=name,
        second=second,
        include=include,
        inputs=" + ".join(inputs),
        outputs=" + ".join(outputs),
        kind=float_type,
        helpers=helpers,
        convert=convert,
        arguments=", ".join(arguments),
        show=show,
    )


def _starts(array: str, sizes: list[str]) -> list[str]:
    """Return where each end begins in an array that holds all of them."""
    return [" + ".join([array, *sizes[:index]]) for index in range(len(sizes))]


def _bits(index: str, sizes: list[str], bits: list[str]) -> str:
    """Return the fractional bits of an element of an array that holds all ends."""
    found = bits[-1]
    for number in range(len(bits) - 2, -1, -1):
        found = f"{index} < {' + '.join(sizes[: number + 1])} ? {bits[number]} : {found}"
    return f"({found})"

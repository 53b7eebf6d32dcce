"""Put the biggest risks of an export on hardware into words."""

from typing import Any

from snukeras.export.crossbar.map import CrossbarMap
from snukeras.export.report.simulation import TIMES


def risks(crossbar: CrossbarMap, verification: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """The biggest risks in words, each with the number it comes from; the gravest first."""
    said: list[tuple[float, str]] = []
    if not verification["ok"]:
        said.append((9.0, "The export did not pass its verification. Do not use it."))
    faults = crossbar.description["faults"]
    if faults:
        worst = max(abs(fault["weight_error"]) for fault in faults)
        said.append(
            (
                2.0,
                f"{len(faults)} weight(s) sit on stuck devices; the largest weight error that "
                f"remains is {worst:.2g}.",
            )
        )
    said += _drift(found)
    if found["metric"] is not None:
        said += _decay(found["metric"], verification["metric"])
    target = crossbar.target
    if target.levels is None:
        said.append(
            (
                0.5,
                "The map asks for continuous conductances. Devices reach them only within the "
                "programming noise that is simulated here; try --levels to see coarser ones.",
            )
        )
    else:
        worst = max(
            verification["map"]["matrices"], key=lambda m: m["rms_error"] / (m["rms_weight"] or 1)
        )
        ratio = worst["rms_error"] / (worst["rms_weight"] or 1)
        said.append(
            (
                ratio * 5,
                f"{target.levels} levels round the weights of {worst['name']} by "
                f"{ratio:.1%} of their rms value.",
            )
        )
    for entry in verification["map"]["matrices"]:
        ratio = entry["rms_weight"] / entry["max_weight"] if entry["max_weight"] else 1.0
        if ratio < 0.12:
            said.append(
                (
                    1.0 - ratio,
                    f"The weights of {entry['name']} have an rms value of {ratio:.0%} of the "
                    "largest, so most devices hold little conductance, where noise weighs most. "
                    "Clip weights in training (PCMConstraint), or export with --scale column.",
                )
            )
    tiles = crossbar.description["tiles"]
    used = sum(t["devices_used"] for t in tiles) / sum(t["devices"] for t in tiles)
    if used < 0.3 and len(tiles) > 1:
        said.append(
            (
                0.4,
                f"Only {used:.1%} of the devices of {len(tiles)} tiles are used; the upper energy "
                "pays for all. --pack may need fewer tiles.",
            )
        )
    if crossbar.description["adders"]:
        said.append(
            (
                0.3,
                f"{len(crossbar.description['adders'])} group(s) of columns are split over word "
                "lines; their partial sums are converted one by one, then added.",
            )
        )
    return [text for _, text in sorted(said, key=lambda item: -item[0])]


def _drift(found):
    """The risk from the simulated errors of products."""
    if found["products"]:
        worst = max(found["products"], key=lambda entry: entry["relative_error"]["global"][-1])
        errors = worst["relative_error"]
        yield (
            1.0 + errors["global"][-1],
            f"The product of {worst['name']} is off by {errors['global'][0]:.1%} at {TIMES[25.0]} "
            f"and by {errors['global'][-1]:.1%} after a year with drift compensation "
            f"({errors['none'][-1]:.1%} without).",
        )


def _decay(metric, reference):
    """Risks from the simulated metric; `reference` is that of the verification."""
    bare, helped = metric["none"], metric["global"]
    exact, sign = reference["values"]["keras"], 1.0 if reference["lower_is_better"] else -1.0
    end = helped["mean"][-1]
    worst = max(sign * end, sign * bare["mean"][-1]) * sign
    # How much worse it gets, as a share of the figure.
    loss = sign * (worst - exact) / max(abs(exact), abs(worst), 1e-9)
    text = (
        f"The {reference['title']} on the samples is {exact:.2f} {reference['unit']} in Keras, "
        f"{helped['mean'][0]:.2f} on chips at 25 s, {end:.2f} after a year with drift "
        f"compensation and {bare['mean'][-1]:.2f} without."
    )
    if loss <= 0.01:
        text += " Ask more chips and more data before relying on that little loss."
    yield 0.2 if loss <= 0.01 else 2.5 + loss, text
    best, worst_of = ("min", "max") if sign > 0 else ("max", "min")
    harmed = [
        name
        for name, with_it, without in zip(TIMES.values(), helped[best], bare[worst_of], strict=True)
        if sign * with_it > sign * without
    ]
    if harmed:
        yield (
            1.4,
            f"Compensation does harm at {', '.join(harmed)}: every chip is better without it "
            "there.",
        )

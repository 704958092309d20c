"""usage: report.py RESULTS MARKDOWN [JSON_FILE] cairn SYSTEM...

Makes a table of medians out of lines "SYSTEM<TAB>FIGURE<TAB>UNIT<TAB>VALUE". Beside every median of another
system stands how much better Cairn is: 2.0x is twice as good, whether more or less of the figure is good.
"""

import json
import statistics
import sys

LESS_IS_GOOD = {"s", "cpu-s/GiB", "MiB", "peak-MiB"}


def main():
    results, markdown, *rest = sys.argv[1:]
    json_file = rest.pop(0) if rest[0] != "cairn" else None
    systems = rest
    values, order = {}, []
    for line in open(results):
        system, figure, unit, value = line.rstrip("\n").split("\t")
        if (figure, unit) not in order and unit != "peak-MiB":
            order.append((figure, unit))
        values.setdefault((figure, unit, system), []).append(float(value))
    with open(markdown, "a" if markdown.startswith("/dev/") else "w") as out:
        print(table(values, order, systems), file=out)
        print(memory(values, systems), file=out)
    if json_file:
        with open(json_file, "w") as out:
            json.dump(as_json(values, systems), out, indent=1)


def number(value):
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def cell(values, figure, unit, system):
    own = values.get((figure, unit, system))
    if not own:
        return "-"
    text = number(statistics.median(own))
    if len(own) > 1:
        text += f" ({number(min(own))} to {number(max(own))})"
    cairn = values.get((figure, unit, "cairn"))
    if system == "cairn" or not cairn or unit == "MiB":
        return text
    ours, theirs = statistics.median(cairn), statistics.median(own)
    better, worse = (theirs, ours) if unit in LESS_IS_GOOD else (ours, theirs)
    return text + (f" **{number(better / worse)}x**" if worse else "")


def table(values, order, systems):
    lines = [
        "| figure | unit | " + " | ".join(systems) + " |",
        "|---|---|" + "---:|" * len(systems),
    ]
    for figure, unit in order:
        cells = [cell(values, figure, unit, system) for system in systems]
        lines.append(f"| {figure} | {unit} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def memory(values, systems):
    lines = []
    for system in systems:
        peaks = {
            figure.removeprefix("peak memory of "): max(own)
            for (figure, unit, s), own in values.items()
            if s == system and unit == "peak-MiB"
        }
        if peaks:
            text = ", ".join(f"{name} {number(peak)}" for name, peak in sorted(peaks.items()))
            lines.append(f"- peak memory of {system} in MiB: {text}")
    return "\n" + "\n".join(lines)


def as_json(values, systems):
    figures = [
        {
            "system": system,
            "figure": figure,
            "unit": unit.replace("peak-", ""),
            "less_is_good": unit in LESS_IS_GOOD,
            "median": statistics.median(own),
            "values": own,
        }
        for (figure, unit, system), own in values.items()
    ]
    return {"version": 1, "systems": systems, "figures": figures}


main()

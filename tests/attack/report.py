"""The figures of a run: a line while it runs, a table and JSON at its end."""

import json

from attack import kills, pairs, tries

GOOD = {
    tries.REFUSED,
    tries.SAME,
    tries.OTHER,
    kills.ENDED,
    kills.SAME_BYTES,
    pairs.BY_NAME,
    pairs.FOR_FILES,
    pairs.BOTH,
}
TITLES = {
    "damage": "Damaged and forged files",
    "kill": "Writers killed, and run again",
    "pair": "Two programs on one folder",
}
_told: dict = {}


def say(kind, name, tally) -> None:
    """Print what became of the tries of one subject."""
    counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(tally.counts.items()))
    of = f" ({tally.tried} of {tally.places} flips and cuts)" if tally.places else ""
    print(f"{kind} {name}: {counts}{of}", flush=True)
    tell_new(kind, name, tally)


def tell_new(kind, name, tally) -> None:
    """Print the faults that were not printed yet; of many the first."""
    seen = _told.get((kind, name), 0)
    for fault in tally.faults[seen:][:5]:
        print(f"  FAULT {fault['outcome']}: {fault['try']}\n    " + fault["told"].replace("\n", "\n    "), flush=True)
    _told[kind, name] = len(tally.faults)


def write(folder, said, tallies) -> int:
    """Write attack.json and attack.md; return 1 where something broke."""
    rows = [
        {"kind": kind, "name": name, "tries": sum(tally.counts.values()), "outcomes": dict(tally.counts),
         "places": tally.places, "tried_places": tally.tried, "faults": tally.faults[:50]}
        for (kind, name), tally in tallies.items()
    ]  # fmt: skip
    broken = sum(count for row in rows for outcome, count in row["outcomes"].items() if outcome not in GOOD)
    broken += sum(bool(row["faults"]) and set(row["outcomes"]) <= GOOD for row in rows)
    (folder / "attack.json").write_text(json.dumps({**said, "broken": broken, "rows": rows}, indent=1) + "\n")
    text = [f"{said['began']}, {said['took_minutes']} minutes, seed {said['seed']}: {broken} broken", ""]
    for kind, title in TITLES.items():
        text += _table(title, [row for row in rows if row["kind"] == kind])
    (folder / "attack.md").write_text("\n".join(text))
    print("\n".join(text))
    return int(broken > 0)


def _table(title, rows) -> list[str]:
    if not rows:
        return []
    outcomes = sorted(
        {outcome for row in rows for outcome in row["outcomes"]}, key=lambda name: (name not in GOOD, name)
    )
    lines = [f"| {title} | tries | {' | '.join(outcomes)} |", "|---|---|" + "---|" * len(outcomes)]
    whole = {"name": "all", "tries": sum(row["tries"] for row in rows), "outcomes": {}}
    for outcome in outcomes:
        whole["outcomes"][outcome] = sum(row["outcomes"].get(outcome, 0) for row in rows)
    for row in [*sorted(rows, key=lambda row: row["name"]), whole]:
        counts = " | ".join(f"{row['outcomes'].get(outcome, 0):,}" for outcome in outcomes)
        lines.append(f"| {row['name']} | {row['tries']:,} | {counts} |")
    return [*lines, ""]

"""The tables that tpu_check prints."""

from collections.abc import Sequence

from tpu_retinamask.xla.cost import OTHER, PARTS

_GIB = 2**30


def format_report(rows: Sequence[dict]) -> str:
    """Return Markdown: what each chip said, the cycles by part of the model, and what carries no estimate.

    Args:
      rows: dicts of `tpu_check`: topology, replicas, batch_per_core, lowered, compiled ("yes", "out of memory" or
        "refused") and reason; where compiled, the figures of `aot.compile_program` and `cost.estimate`; where asked
        for, largest_batch.
    """
    compiled = [row for row in rows if row["compiled"] == "yes"]
    sections = [_memory_table(rows)]
    sections += [f"{row['topology']}: {row['reason'].strip()[:1500]}" for row in rows if row["compiled"] != "yes"]
    if compiled:
        sections += [_parts_table(compiled), _without_estimate(compiled)]
    return "\n\n".join(sections)


def _memory_table(rows) -> str:
    head = [
        "topology",
        "cores",
        "batch a core",
        "lowered",
        "compiled",
        "fits",
        "seconds",
        "peak GiB",
        "of HBM GiB",
        "arguments",
        "temporaries",
        "GFLOP",
        "GB accessed",
        "M cycles",
        "ms",
        "all-reduces",
    ]
    if any("largest_batch" in row for row in rows):
        head.append("largest batch")
    lines = []
    for row in rows:
        cells = [row["topology"], row["replicas"], row["batch_per_core"], row["lowered"], row["compiled"]]
        if row["compiled"] == "yes":
            cells += [
                "yes" if row["fits"] else "no",
                f"{row['seconds']:.0f}",
                f"{row['peak_bytes'] / _GIB:.2f}",
                f"{row['hbm_bytes'] / _GIB:.0f}",
                f"{row['argument_bytes'] / _GIB:.2f}",
                f"{row['temporary_bytes'] / _GIB:.2f}",
                _giga(row["flops"]),
                _giga(row["bytes_accessed"]),
                f"{row['cycles'] / 1e6:.1f}",
                f"{row['cycles'] / row['clock_hz'] * 1e3:.0f}",
                f"{row['all_reduces']['count']} of {row['all_reduces']['bytes'] / 1e6:.0f} MB",
            ]
            if "largest_batch" in row:
                cells.append(f"{row['largest_batch']}" + ("" if row["largest_batch_confirmed"] else " (not confirmed)"))
        else:
            cells += [
                "no" if row["compiled"] == "out of memory" else "",
                "",
                "",
                f"{row['hbm_bytes'] / _GIB:.0f}" if "hbm_bytes" in row else "",
            ]
        lines.append(cells + [""] * (len(head) - len(cells)))
    return _table(head, lines)


def _parts_table(rows) -> str:
    parts = [part for part, _ in PARTS][1:] + ["update", OTHER]
    lines = [
        [row["topology"], *(f"{row['cycles_by_part'].get(part, 0) / max(1, row['cycles']):.0%}" for part in parts)]
        for row in rows
    ]
    return "Estimated cycles by part of the model:\n\n" + _table(["topology", *parts], lines)


def _without_estimate(rows) -> str:
    lines = []
    for row in rows:
        what = ", ".join(f"{count} {name}" for name, count in list(row["uncosted"].items())[:8])
        lines.append(
            f"- {row['topology']}: {row['uncosted_share']:.0%} of the bytes written, "
            f"{_size(row['uncosted_bytes'])}: {what}; and {row['copies']} copies beside the computation"
        )
    return "Without an estimate of cycles:\n\n" + "\n".join(lines)


def _size(count) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.0f} MB"


def _giga(value) -> str:
    return "?" if value is None else f"{value / 1e9:.0f}"


def _table(head, lines) -> str:
    rows = [[str(cell) for cell in line] for line in [head, *lines]]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    text = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in rows]
    return "\n".join([text[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *text[1:]])

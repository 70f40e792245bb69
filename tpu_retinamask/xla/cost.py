"""What the TPU's compiler expects a program to cost, split by part of the model.

The optimised program carries the compiler's own `estimated_cycles` at most instructions. Gathers, scatters, sorts,
sums over cores and other custom calls carry none: how many these are, and the bytes they write, is reported beside
the cycles. Copies between memories that run beside the computation are counted apart, and what writes less than
LEAST_BYTES not at all. The body of a loop counts as often as it runs where the compiler knows that (the parts of a
batch), else once (the blocks and rounds of the suppression).
"""

import collections
import math
import re

# First match of an operation's name wins; names are the scopes of the layers and of the training step.
PARTS = (
    ("update", r"update/"),
    ("backbone", r"backbone"),
    ("FPN", r"fpn"),
    ("heads", r"pyramid_(classification|regression)"),
    ("RoIAlign", r"roi_align"),
    ("mask head", r"roi_mask"),
    ("top-k + NMS", r"selection/"),
    ("targets", r"targets/"),
    ("losses", r"losses/"),
)
OTHER = "other"
LEAST_BYTES = 1024
_FREE = {
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "after-all",
    "partition-id",
    "replica-id",
    "iota",
}
_BYTES = {
    "pred": 1,
    "s8": 1,
    "u8": 1,
    "bf16": 2,
    "f16": 2,
    "s16": 2,
    "u16": 2,
    "f32": 4,
    "s32": 4,
    "u32": 4,
    "f64": 8,
    "s64": 8,
    "u64": 8,
}
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?[\w.\-]+ = (.*?) ([a-z][\w\-]*)\(")
_SHAPE = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")


def part_of(op_name: str) -> str:
    """Return the part of the model that an operation belongs to; its gradient belongs there too."""
    return next((part for part, pattern in PARTS if re.search(pattern, op_name)), OTHER)


def estimate(hlo: str) -> dict:
    """Read the costs of an optimised program.

    Args:
      hlo: text of a scheduled module.

    Returns:
      dict of `cycles` (total), `cycles_by_part`, `uncosted` (instructions by opcode that carry no estimate),
      `uncosted_share` of the bytes that all instructions write, `uncosted_bytes`, `copies` that run beside the
      computation, and `all_reduces`: dict of count and bytes.
    """
    called = set(re.findall(r"(?:calls|to_apply)=%?([\w.\-]+)", hlo))
    rounds = _rounds(hlo)
    by_part, uncosted = collections.Counter(), collections.Counter()
    written, uncosted_bytes, copies, reduces, reduced_bytes, inside = 0, 0, 0, 0, 0, None
    for line in hlo.splitlines():
        start = _COMPUTATION.match(line)
        if start:
            inside = start.group(1)
        match = _INSTRUCTION.match(line)
        if match is None or inside in called:  # a fusion's instructions are costed as one
            continue
        shape, opcode = match.groups()
        if opcode in _FREE or opcode.endswith("-done"):
            continue
        size = _size(shape)
        if opcode.startswith("all-reduce"):
            reduces, reduced_bytes = reduces + rounds[inside], reduced_bytes + size * rounds[inside]
        if opcode in ("copy-start", "slice-start", "async-start"):
            copies += rounds[inside]
            continue
        size *= rounds[inside]
        written += size
        cycles = re.search(r'"estimated_cycles":"(\d+)"', line)
        if cycles:
            name = re.search(r'op_name="([^"]*)"', line)
            by_part[part_of(name.group(1) if name else "")] += int(cycles.group(1)) * rounds[inside]
        elif size >= LEAST_BYTES:
            target = re.search(r'custom_call_target="([^"]*)"', line)
            uncosted[target.group(1) if target else opcode] += rounds[inside]
            uncosted_bytes += size
    return {
        "cycles": sum(by_part.values()),
        "cycles_by_part": dict(by_part.most_common()),
        "uncosted": dict(uncosted.most_common()),
        "uncosted_share": uncosted_bytes / max(1, written),
        "uncosted_bytes": uncosted_bytes,
        "copies": copies,
        "all_reduces": {"count": reduces, "bytes": reduced_bytes},
    }


def _rounds(hlo: str) -> dict:
    """Return how often each computation runs: the known numbers of rounds of the loops around it, multiplied."""
    loops, inside = {}, None  # body -> (the computation that holds the loop, rounds)
    for line in hlo.splitlines():
        start = _COMPUTATION.match(line)
        if start:
            inside = start.group(1)
        body = re.search(r" while\(.*body=%?([\w.\-]+)", line)
        if body:
            known = re.search(r'"known_trip_count":\{"n":"(\d+)"', line)
            loops[body.group(1)] = inside, int(known.group(1)) if known else 1

    def of(name):
        if name not in loops:
            return 1
        outside, rounds = loops[name]
        return rounds * of(outside)

    return collections.defaultdict(lambda: 1, {name: of(name) for name in loops})


def _size(shape: str) -> int:
    return sum(
        _BYTES.get(dtype, 0) * math.prod(int(side) for side in sides.split(",") if side)
        for dtype, sides in _SHAPE.findall(shape)
    )

"""Search of a traced function for operations that a TPU refuses, that leave the device, or whose shape is dynamic.

The compiler of a CPU or GPU accepts some of them (a one-argument Where compiles to a padded shape), so
that a function compiles here is no proof: its graph has to be read.
"""

import collections
import dataclasses
import linecache
import os
import re
import sysconfig
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from tpu_retinamask.errors import UserError, listed
from tpu_retinamask.private.tensorflow_names import function_graph, function_names

MAX_LISTED = 20  # findings that an error shows; the rest is counted

_HOST = "runs on the host: no XLA kernel exists"
_FORBIDDEN = {
    "Where": "its output has as many rows as there are true elements (tf.where with one argument, tf.boolean_mask)",
    "Unique.*": "its output has as many rows as there are different elements",
    "CropAndResize|CropAndResizeGrad.*": "no TPU kernel; ops.roi_align crops",
    "ResizeNearestNeighborGrad": "no XLA kernel; ops.resize.upsample_nearest has a gradient of its own",
    "CombinedNonMaxSuppression": "no XLA kernel; ops.nms suppresses",
    "Print|PrintV2|StringFormat": _HOST + "; return the value among the metrics and log it there",
    "Assert": _HOST + "; check what is static while tracing",
    "PyFunc|PyFuncStateless|EagerPyFunc": _HOST + "; Python cannot run on a device reached over the network",
    "FakeParam": "stands for a value that only the other branch of a cond computes, as a loop in a branch leaves it",
    "RandomShuffle|StatelessShuffle": "no TPU kernel; sort stateless uniforms with tf.math.top_k",
    ".*TensorList.*": "a list of tensors is a variant, as map_fn and the gradient of a loop need one",
}
_NOT_TENSORS = {tf.variant: "DT_VARIANT", tf.string: "DT_STRING"}
_LIBRARY_FOLDERS = tuple(
    os.path.realpath(folder) + os.sep for folder in (os.path.dirname(tf.__file__), os.path.dirname(keras.__file__))
)
_STANDARD_LIBRARY = os.path.realpath(sysconfig.get_paths()["stdlib"]) + os.sep


@dataclasses.dataclass(frozen=True)
class Finding:
    """An operation that must not be in a compiled step.

    Attributes:
      op_type: such as "Where".
      op_name: in its graph.
      reason: why it is forbidden.
      source: file, line and text of the code that made it; "" if it was read from a saved function.
      function: name of the graph it lies in: the audited function or one of its library.
    """

    op_type: str
    op_name: str
    reason: str
    source: str
    function: str


class ForbiddenOpError(UserError):
    """A function holds operations that must not be in a compiled step."""


def audit(concrete_function: Any) -> tuple[Finding, ...]:
    """Find every forbidden operation of a traced function and of all functions that it calls.

    Args:
      concrete_function: from `tf.function(...).get_concrete_function(...)`. Captured variables are fine.

    Returns:
      Findings, the forbidden operations before those that only pass on a variant, a string or a dynamic
      shape; in the order of the graphs, the function itself before its library (nested calls, bodies of
      loops and branches, and their gradients).
    """
    findings = []
    for name, graph in all_graphs(concrete_function.graph):
        for op in graph.get_operations():
            reasons = _reasons(op)
            if reasons:
                findings.append(Finding(op.type, op.name, "; ".join(reasons), source_of(op), name))
    return tuple(sorted(findings, key=lambda finding: not _why_forbidden(finding.op_type)))  # stable


def count_ops(concrete_function: Any) -> collections.Counter:
    """Count the operations of a traced function and of all functions that it calls, by type."""
    return collections.Counter(
        op.type for _, graph in all_graphs(concrete_function.graph) for op in graph.get_operations()
    )


def format_finding(finding: Finding) -> str:
    """Return one paragraph: what, where and why."""
    return (
        f"{finding.op_type} {finding.op_name!r} in {finding.function}: {finding.reason}\n"
        f"    {finding.source or 'source unknown'}"
    )


def check(concrete_function: Any) -> None:
    """Pass a function that holds no forbidden operation.

    Args:
      concrete_function: see `audit`.

    Raises:
      ForbiddenOpError: lists the first findings.
    """
    findings = audit(concrete_function)
    if findings:
        raise ForbiddenOpError(
            f"{len(findings)} operations of {concrete_function.name.decode()} must not be in a compiled step:\n"
            + listed(map(format_finding, findings), most=MAX_LISTED, indent="")
        )


def all_graphs(graph: tf.Graph) -> Iterator[tuple[str, tf.Graph]]:
    """Yield (name, graph) of a function graph and of its whole library, each function once."""
    pending, seen = [(graph.name, graph)], set()
    while pending:
        name, graph = pending.pop(0)
        yield name, graph
        for name in function_names(graph):
            if name not in seen:
                seen.add(name)
                pending.append((name, function_graph(name, graph)))


def _why_forbidden(op_type: str) -> list[str]:
    return [reason for pattern, reason in _FORBIDDEN.items() if re.fullmatch(pattern, op_type)]


def _reasons(op) -> list[str]:
    if op.type == "TPUCompilationResult":
        return []  # what the compiler reports to the host, beside the program
    reasons = _why_forbidden(op.type)
    reasons += [
        f"a tensor of {_NOT_TENSORS[dtype]} does not exist on the device"
        for dtype in _NOT_TENSORS
        if dtype in _dtypes(op)
    ]
    if op.type == "Placeholder" and not op.outputs[0].consumers():
        return reasons  # an argument that a loop's condition ignores: it may lack the shape its caller's tensor has
    for output in op.outputs:
        # A resource is a variable's handle; the shape of the variable is that of its reads.
        if output.dtype != tf.resource and not output.shape.is_fully_defined():
            reasons.append(f"dynamic shape {output.shape} of {output.name}")
    return reasons


def _dtypes(op) -> set:
    found = {tensor.dtype for tensor in (*op.inputs, *op.outputs)}
    for value in op.node_def.attr.values():
        kinds = [value.type, value.tensor.dtype, *value.list.type, *(tensor.dtype for tensor in value.list.tensor)]
        found.update(tf.as_dtype(kind) for kind in kinds if kind)
    return found


def source_of(op: tf.Operation) -> str:
    """Return the innermost line of the op's origin that is neither TensorFlow's, Keras's nor Python's own."""
    frames = list(op.traceback or ())
    for frame in reversed(frames):
        file = os.path.realpath(frame.filename)
        if (
            not file.startswith(_LIBRARY_FOLDERS)
            and (not file.startswith(_STANDARD_LIBRARY) or "site-packages" in file)
            and os.path.isfile(file)
        ):
            line = linecache.getline(frame.filename, frame.lineno).strip()
            return f"{frame.filename}:{frame.lineno}, in {frame.name}: {line}"
    return ""

"""A serialized StableHLO program as a module that a compiler takes; needs jax and no TensorFlow."""

import hashlib
import re
from collections.abc import Sequence
from typing import Any

from tpu_retinamask.private import jax_names


def parse(program: bytes, aliases: Sequence[tuple[int, int]] = ()) -> Any:
    """Return the module of a program.

    Args:
      program: serialized StableHLO.
      aliases: (argument, output) pairs: the output takes over the argument's memory.
    """
    with jax_names.make_ir_context():
        module = jax_names.ir.Module.parse(program)
        _alias(module, dict(aliases), jax_names.ir)
        return module


def digest(module: Any) -> str:
    """Return a name of what a module computes, whatever its functions are called: TensorFlow counts those it traces."""
    numbers: dict[str, int] = {}
    text = re.sub(r"@[\w.$-]+", lambda found: f"@{numbers.setdefault(found[0], len(numbers))}", str(module))
    return hashlib.sha256(text.encode()).hexdigest()


def _alias(module, pairs, ir):
    for operation in module.body.operations:
        if operation.attributes["sym_name"].value != "main":
            continue
        count = len(operation.arguments)
        given = operation.attributes["arg_attrs"] if "arg_attrs" in operation.attributes else [{}] * count
        marked = []
        for index, attributes in enumerate(given):
            entries = {entry.name: entry.attr for entry in attributes} if attributes else {}
            if index in pairs:
                entries["tf.aliasing_output"] = ir.IntegerAttr.get(ir.IntegerType.get_signless(32), pairs[index])
            marked.append(ir.DictAttr.get(entries))
        operation.attributes["arg_attrs"] = ir.ArrayAttr.get(marked)

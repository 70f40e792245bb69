"""A traced step with variables as a pure function: their values go in, their new values come out.

The lowering with a TPU's kernels takes tensors only. So the operations of a traced graph are emitted anew, in the
order in which they were made (which in a function's graph is program order): a read of a variable becomes its current
value, an assignment the next one, and a call or loop that takes variables is emitted in place with their values.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from tpu_retinamask.private.tensorflow_names import (
    copy_functions,
    create_operation,
    function_graph,
    variable_spec,
)

_LEFT_OUT = {"NoOp", "TPUReplicateMetadata", "TPUCompilationResult"}
_CALLS = {"PartitionedCall", "StatefulPartitionedCall"}
_LOOPS = {"While", "StatelessWhile"}
_BRANCHES = {"If", "StatelessIf", "Case", "StatelessCase"}
_UPDATES = {
    "AssignVariableOp": lambda old, value: value,
    "AssignAddVariableOp": lambda old, value: old + value,
    "AssignSubVariableOp": lambda old, value: old - value,
}
_DROPPED_ATTRIBUTES = {"_class", "_tpu_replicate", "_has_manual_control_dependencies", "_XlaMustCompile"}


class PureFunction(NamedTuple):
    """A function of tensors alone.

    Attributes:
      function: `(*inputs, *state) -> [*outputs, *new state]`.
      inputs: TensorSpec of each input, in the order of the traced function's flattened arguments.
      state: TensorSpec of each variable's value.
      variables: handle of each variable, as the traced function captured it.
      num_outputs: of the traced function, before the new state.
      origins: name of each emitted operation to the operation that it was made from; filled by tracing `function`.
    """

    function: Callable
    inputs: tuple[tf.TensorSpec, ...]
    state: tuple[tf.TensorSpec, ...]
    variables: tuple
    num_outputs: int
    origins: dict

    @property
    def specs(self) -> tuple[tf.TensorSpec, ...]:
        """Return the specs of all arguments."""
        return self.inputs + self.state

    @property
    def aliases(self) -> list[tuple[int, int]]:
        """Return the (argument, output) pairs that are one variable before and after."""
        return [(len(self.inputs) + slot, self.num_outputs + slot) for slot in range(len(self.state))]


class _Handle(NamedTuple):
    """Stands for a variable's handle; `slot` is its place in the state."""

    slot: int


def pure_function(concrete: Any) -> PureFunction:
    """Turn a concrete function of one device into a pure one.

    Args:
      concrete: ConcreteFunction; it may read and assign captured variables.

    Raises:
      ValueError: an operation takes a variable in a way that is not known here.
    """
    graph = concrete.graph
    captured = {inner.ref() for _, inner in graph.captures}
    arguments = [tensor for tensor in graph.inputs if tensor.ref() not in captured]
    variables = [(outer, inner) for outer, inner in graph.captures if inner.dtype == tf.resource]
    constants = [(outer, inner) for outer, inner in graph.captures if inner.dtype != tf.resource]
    origins = {}

    def function(*values):
        known = dict(zip((tensor.ref() for tensor in arguments), values))
        known |= {inner.ref(): tf.constant(_value(outer)) for outer, inner in constants}
        known |= {inner.ref(): _Handle(slot) for slot, (_, inner) in enumerate(variables)}
        state = list(values[len(arguments) :])
        outputs = _emit_graph(graph, known, state, graph.outputs, origins)
        return [tf.identity(value) for value in (*outputs, *state)]

    return PureFunction(
        function,
        _specs(arguments),
        tuple(_variable_spec(pair) for pair in variables),
        tuple(outer for outer, _ in variables),
        len(graph.outputs),
        origins,
    )


def per_core_function(concrete: Any) -> PureFunction:
    """Return what one core of a TPUStrategy does, from a function that calls `strategy.run` once.

    Args:
      concrete: ConcreteFunction traced under the strategy; its arguments are those of one core.

    Raises:
      ValueError: the function does not hold exactly one replicated body.
      ValueError: an operation takes a variable in a way that is not known here.
    """
    graph = concrete.graph
    all_ops = graph.get_operations()
    bodies = [op for op in all_ops if op.type == "TPUReplicateMetadata"]
    if len(bodies) != 1:
        raise ValueError(
            f"{concrete.name.decode()} holds {len(bodies)} bodies replicated over TPU cores, expected "
            "one: it must call strategy.run once"
        )
    cluster = bodies[0].get_attr("_tpu_replicate")
    entries = [op for op in all_ops if op.type == "TPUReplicatedInput"]
    arguments = [op for op in entries if op.outputs[0].dtype != tf.resource]
    handles = [op for op in entries if op.outputs[0].dtype == tf.resource]
    outer_of = {inner.ref(): outer for outer, inner in graph.captures}
    slots = {}  # a variable may enter more than once
    for op in handles:
        slots.setdefault(op.inputs[0].ref(), (len(slots), op))
    exits = [op.inputs[0] for op in all_ops if op.type == "TPUReplicatedOutput"]
    origins = {}

    def in_body(op):
        return "_tpu_replicate" in op.node_def.attr and op.get_attr("_tpu_replicate") == cluster

    def function(*values):
        known = {op.outputs[0].ref(): value for op, value in zip(arguments, values)}
        known |= {op.outputs[0].ref(): _Handle(slots[op.inputs[0].ref()][0]) for op in handles}
        state = list(values[len(arguments) :])
        outputs = _emit_graph(graph, known, state, exits, origins, in_body)
        return [tf.identity(value) for value in (*outputs, *state)]

    state = [
        _variable_spec([outer_of.get(tensor.ref()) for tensor in op.inputs] + [*op.inputs, op.outputs[0]])
        for _, op in slots.values()
    ]
    return PureFunction(
        function,
        _specs(op.outputs[0] for op in arguments),
        tuple(state),
        tuple(outer_of[reference] for reference in slots),
        len(exits),
        origins,
    )


def _emit_graph(graph, known, state, wanted, origins, wants_op=lambda op: True):
    """Emit a graph's operations into the current one and return the wanted tensors.

    Args:
      graph: FuncGraph to read.
      known: value or _Handle of each tensor's ref; grows.
      state: list of the variables' current values; changes.
      wanted: tensors of `graph`.
      origins: see PureFunction.
      wants_op: which operations belong to the function.
    """
    for op in graph.get_operations():
        if op.type in _LEFT_OUT or not wants_op(op) or (op.outputs and all(out.ref() in known for out in op.outputs)):
            continue
        inputs = [known[tensor.ref()] for tensor in op.inputs]
        takes_variables = any(isinstance(value, _Handle) for value in inputs)
        if op.type == "ReadVariableOp":
            outputs = [tf.identity(state[inputs[0].slot])]
        elif op.type in _UPDATES:
            slot = inputs[0].slot
            state[slot] = _UPDATES[op.type](state[slot], inputs[1])
            outputs = []
        elif op.type == "VarIsInitializedOp":
            outputs = [tf.constant(True)]
        elif op.type == "ResourceGather":
            outputs = [tf.gather(state[inputs[0].slot], inputs[1], batch_dims=op.get_attr("batch_dims"))]
        elif op.type == "Identity" and takes_variables:
            outputs = inputs
        elif op.type in _CALLS and (takes_variables or "_XlaMustCompile" in op.node_def.attr):
            called = _called(op, "f", graph)
            outputs = _emit_graph(called, _known(called, inputs), state, called.outputs, origins)
        elif op.type in _LOOPS and takes_variables:
            outputs = _emit_loop(op, inputs, graph, state, origins)
        elif takes_variables:
            raise ValueError(
                f"{op.type} {op.name!r} takes a variable"
                + ("; a branch may not read or assign one" if op.type in _BRANCHES else "")
            )
        else:
            outputs = _emit(op, inputs, graph, origins)
        known.update(zip((out.ref() for out in op.outputs), outputs))
    return [known[tensor.ref()] for tensor in wanted]


def _emit_loop(op, inputs, graph, state, origins):
    """Emit a while loop whose body uses variables: their values become loop variables."""
    condition, body = _called(op, "cond", graph), _called(op, "body", graph)
    slots = sorted({value.slot for value in inputs if isinstance(value, _Handle)})
    positions = [i for i, value in enumerate(inputs) if not isinstance(value, _Handle)]

    def unpack(values):
        filled, inner = list(inputs), list(state)
        for position, value in zip(positions, values):
            filled[position] = value
        for slot, value in zip(slots, values[len(positions) :]):
            inner[slot] = value
        return filled, inner

    def goes_on(*values):
        filled, inner = unpack(values)
        return _emit_graph(condition, _known(condition, filled), inner, condition.outputs, origins)[0]

    def one_round(*values):
        filled, inner = unpack(values)
        outputs = _emit_graph(body, _known(body, filled), inner, body.outputs, origins)
        return [outputs[position] for position in positions] + [inner[slot] for slot in slots]

    start = [inputs[position] for position in positions] + [state[slot] for slot in slots]
    final = tf.while_loop(goes_on, one_round, start)
    filled, new_state = unpack(final)
    state[:] = new_state
    return filled


def _known(graph, values):
    return dict(zip((tensor.ref() for tensor in graph.inputs), values))


def _emit(op, inputs, source, origins):
    """Emit one operation without variables, under its own name where that is free."""
    target = tf.compat.v1.get_default_graph()
    _copy_library(op, source, target)
    attributes = {name: value for name, value in op.node_def.attr.items() if name not in _DROPPED_ATTRIBUTES}
    emitted = create_operation(target, op, inputs, attributes)
    origins[emitted.name] = op
    return emitted.outputs


def _copy_library(op, source, target):
    """Make the functions that an operation names known to the target graph."""
    named = any(value.HasField("func") or value.list.func for value in op.node_def.attr.values())
    while named and source is not None:
        copy_functions(source, target)
        source = getattr(source, "outer_graph", None)


def _called(op, attribute, graph):
    """Return the graph of the function that an operation names."""
    name = op.get_attr(attribute).name
    while graph is not None:
        found = function_graph(name, graph)
        if found is not None:
            return found
        graph = getattr(graph, "outer_graph", None)
    raise KeyError(name)


def _value(tensor):
    value = tf.get_static_value(tensor)
    return tensor.numpy() if value is None else value


def _specs(tensors):
    return tuple(tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in tensors)


def _variable_spec(tensors):
    """Return the TensorSpec of the variable behind any of some handles; packed ones carry no shape."""
    for tensor in tensors:
        spec = variable_spec(tensor)
        if spec is not None:
            return spec
    raise ValueError("a captured variable tells neither shape nor dtype")

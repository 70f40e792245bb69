"""Names that jax keeps private: StableHLO modules, and how they are compiled. Import it where jax is installed."""

from jax._src.interpreters import mlir
from jax._src.lib import xla_client
from jaxlib.mlir import ir

from tpu_retinamask.private.checking import require

_KNOWN = {"library": "jax", "distributions": ("jax",), "works": "0.8.0 and 0.10.2"}
require(mlir, "make_ir_context", **_KNOWN)
require(xla_client, "CompileOptions", "DeviceAssignment", "DeviceList", **_KNOWN)
require(xla_client.Client, "compile_and_load", "serialize_executable", "deserialize_executable", **_KNOWN)

make_ir_context = mlir.make_ir_context
CompileOptions, DeviceAssignment, DeviceList = (
    xla_client.CompileOptions,
    xla_client.DeviceAssignment,
    xla_client.DeviceList,
)

__all__ = ["CompileOptions", "DeviceAssignment", "DeviceList", "ir", "make_ir_context"]

"""Costs read off a small optimised program, written by hand in the compiler's form."""

import pytest

from tpu_retinamask.errors import UserError
from tpu_retinamask.xla import aot, report
from tpu_retinamask.xla.cost import estimate, part_of

# ruff: noqa: E501  # a program as the compiler prints it
PROGRAM = """HloModule step, is_scheduled=true

%fused_computation (p: f32[256]) -> f32[256] {
  %p = f32[256]{0} parameter(0)
  ROOT %inner = f32[256]{0} add(%p, %p), metadata={op_name="update/Add"}, backend_config={"estimated_cycles":"999"}
}

%body (q: f32[256]) -> f32[256] {
  %q = f32[256]{0} parameter(0)
  ROOT %round = f32[256]{0} fusion(%q), kind=kLoop, calls=%fused_computation, metadata={op_name="selection/while/Any"}, backend_config={"window_config":{"estimated_cycles":"30"}}
}

ENTRY %main (a: f32[256], b: bf16[8,128]) -> f32[256] {
  %a = f32[256]{0} parameter(0)
  %b = bf16[8,128]{1,0} parameter(1)
  %conv = f32[16,16]{1,0} fusion(%b), kind=kOutput, calls=%fused_computation, metadata={op_name="gradient_tape/retinamask_1/backbone_1/res2a/Conv2DBackpropInput"}, backend_config={"estimated_cycles":"100"}
  %head = f32[16,16]{1,0} fusion(%b), kind=kOutput, calls=%fused_computation, metadata={op_name="retinamask_1/pyramid_regression_1/Relu"}, backend_config={"estimated_cycles":"50"}
  %sum = (f32[256]{0}, f32[16,16]{1,0}) all-reduce(%a, %conv), replica_groups={{0,1}}, to_apply=%add, metadata={op_name="update/CrossReplicaSum"}
  %sorted = f32[512]{0} custom-call(%a), custom_call_target="TopK", metadata={op_name="selection/TopKV2"}
  %moved = (f32[256]{0}, f32[256]{0}, u32[]) copy-start(%a)
  %tiny = s32[] add(%a, %a), metadata={op_name="update/Add"}
  %loop = f32[256]{0} while(%a), condition=%cond, body=%body, metadata={op_name="selection/while"}
  ROOT %out = f32[256]{0} bitcast(%loop)
}
"""


def test_a_loop_of_known_rounds_counts_as_often_and_so_does_the_loop_within():
    known = PROGRAM.replace("body=%body", 'body=%body, backend_config={"known_trip_count":{"n":"3"}}')
    cost = estimate(known)
    assert cost["cycles_by_part"]["top-k + NMS"] == 90 and cost["cycles"] == 240
    part = """%part (r: f32[256]) -> f32[256] {
  %r = f32[256]{0} parameter(0)
  %summed = f32[256]{0} all-reduce-start(%r), to_apply=%add, metadata={op_name="losses/CrossReplicaSum"}
  ROOT %inner = f32[256]{0} while(%r), condition=%cond, body=%body, backend_config={"known_trip_count":{"n":"3"}}
}
"""
    nested = known.replace("ENTRY", part + "\nENTRY").replace(
        'body=%body, backend_config={"known_trip_count":{"n":"3"}}, metadata',
        'body=%part, backend_config={"known_trip_count":{"n":"2"}}, metadata',
    )
    cost = estimate(nested)
    assert cost["cycles_by_part"]["top-k + NMS"] == 2 * 3 * 30
    assert cost["all_reduces"] == {
        "count": 1 + 2,
        "bytes": 2048 + 2 * 1024,
    }  # a sum begun early has the shape of the sum


def test_cycles_by_part_and_what_has_none():
    cost = estimate(PROGRAM)
    assert cost["cycles"] == 180  # a fusion's inside is not counted again; a loop's body once
    assert cost["cycles_by_part"] == {"backbone": 100, "heads": 50, "top-k + NMS": 30}
    assert cost["all_reduces"] == {"count": 1, "bytes": 2048}
    assert cost["uncosted"] == {"all-reduce": 1, "TopK": 1, "while": 1} and cost["copies"] == 1
    uncosted = 2048 + 2048 + 1024  # the sum, the sort, the loop
    assert cost["uncosted_bytes"] == uncosted
    assert cost["uncosted_share"] == pytest.approx(uncosted / (uncosted + 1024 + 1024 + 1024 + 4))


@pytest.mark.parametrize(
    "name, part",
    [
        ("gradient_tape/losses/sigmoid", "losses"),
        ("retinamask_1/fpn_1/P3_1/Conv2D", "FPN"),
        ("gradient_tape/roi_align/Einsum", "RoIAlign"),
        ("roi_mask_1/roi_mask_0_1/Relu", "mask head"),
        ("update/sgd/mul", "update"),
        ("targets/pairwise/Minimum", "targets"),
        ("Cast_3", "other"),
    ],
)
def test_parts(name, part):
    assert part_of(name) == part


def test_chips_and_their_layouts():
    assert aot.chip_of("v5e") == aot.chip_of("v5e:2x2") == aot.CHIPS["v5e"]
    with pytest.raises(UserError, match="v7.*expected one of.*v2.*v6e"):
        aot.chip_of("v7:2x2")


def test_the_report_shows_each_chip_and_why_one_refused():
    row = {
        "topology": "v5e:2x2",
        "replicas": 4,
        "batch_per_core": 2,
        "lowered": "yes",
        "compiled": "yes",
        "fits": True,
        "hbm_bytes": 16 * 2**30,
        "clock_hz": 1e9,
        "seconds": 61.4,
        "peak_bytes": 3 * 2**30,
        "argument_bytes": 0,
        "temporary_bytes": 2**30,
        "flops": 5e9,
        "bytes_accessed": 7e9,
        **estimate(PROGRAM),
    }
    refused = {
        "topology": "v2:2x2",
        "replicas": 4,
        "batch_per_core": 2,
        "lowered": "yes",
        "hbm_bytes": 8 * 2**30,
        "compiled": "out of memory",
        "reason": "used 9G of 8G",
    }
    text = report.format_report([row, refused])
    lines = [line for line in text.splitlines() if line.startswith("| v")]
    assert [cell.strip() for cell in lines[0].split("|")[1:11]] == [
        "v5e:2x2",
        "4",
        "2",
        "yes",
        "yes",
        "yes",
        "61",
        "3.00",
        "16",
        "0.00",
    ]
    assert "out of memory" in lines[1] and "v2:2x2: used 9G of 8G" in text
    assert "56%" in lines[2] and "28%" in lines[2]  # backbone and heads of 180 cycles
    for size, said in ((38_394_710, ", 38 MB: 1 all-reduce"), (1_710_000_000, ", 1.7 GB: 1 all-reduce")):
        assert said in report.format_report([row | {"uncosted_bytes": size}])

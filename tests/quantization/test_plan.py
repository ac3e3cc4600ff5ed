"""Which linears are quantized, with which ranges, and why the others are not."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from quantization.samples import graph_of, linear_graph, observed

from pargo_calibration import QuantRecipe, compute_range
from pargo_export.errors import CalibrationError, QuantizationError
from pargo_export.quantization.linears import find_linears
from pargo_export.quantization.observe import group_by_activation
from pargo_export.quantization.plan import channel_gain, make_plan, require_known_patterns
from pargo_export.quantization.statistics import Observation

RANDOM = np.random.default_rng(20240903)
VALUES = RANDOM.standard_normal((500, 4)).astype(np.float32) + 1
PATHS = (
    "tower.blocks.0.attention.query",
    "tower.blocks.0.attention.key",
    "tower.blocks.0.mlp.down",
    "projector.llm_projection",
)


def recipe(**changes):
    """Return a recipe with some fields changed."""
    return QuantRecipe(**({"name": "test", "summary": "test", "precision": "int8"} | changes))


@pytest.fixture
def linears():
    """Four linears; query and key read the same values."""
    x = ir.val("x", dtype=ir.DataType.FLOAT, shape=ir.Shape([3, 4]))
    nodes, weights, value = [], {}, x
    for path in PATHS:
        weights[f"{path}.weight"] = np.eye(4, dtype=np.float32)
        nodes.append(ir.node("MatMul", [value, ir.Value(name=f"{path}.weight")], name=f"{path}/MatMul"))
        if not path.endswith("query"):
            value = nodes[-1].outputs[0]
    return find_linears(graph_of(nodes, [x], weights))


@pytest.fixture
def groups(linears):
    """The linears by the activation that they read."""
    return group_by_activation(linears)


@pytest.fixture
def observation():
    """What was seen in front of every linear; key reads what query reads."""
    return Observation({path: observed(VALUES) for path in PATHS if not path.endswith("key")})


def test_everything_is_quantized_by_default(groups, observation):
    """Linears that read one activation come together, in the order of the network."""
    plans, kept = make_plan(groups, recipe(), observation, {})
    assert [[linear.path for linear in plan.linears] for plan in plans] == [
        list(PATHS[:2]),
        [PATHS[2]],
        [PATHS[3]],
    ]
    assert kept == {}


def test_kept_by_recipe_and_by_choice(groups, observation):
    """Each with its reason; what a choice says stands before what the recipe says."""
    keep = ({"pattern": "*.key", "reason": "sensitive"}, {"pattern": "projector.*", "reason": "small"})
    plans, kept = make_plan(groups, recipe(keep=keep), observation, {"projector.llm_projection": "chosen"})
    assert kept == {PATHS[1]: "sensitive", PATHS[3]: "chosen"}
    assert [linear.path for plan in plans for linear in plan.linears] == [PATHS[0], PATHS[2]]


def test_kept_first_reader_leaves_its_statistics_to_the_others(groups, observation):
    """The statistics are those of the activation, whichever of its readers is quantized."""
    plans, _ = make_plan(groups, recipe(keep=({"pattern": "*.query", "reason": "no"},)), observation, {})
    assert [linear.path for linear in plans[0].linears] == [PATHS[1]]
    assert plans[0].statistics is observation.activations[PATHS[0]]


def test_zero_range_is_kept_with_the_reason(groups, observation):
    """An activation that was zero on every image has no scale."""
    observation.activations[PATHS[0]] = observed(np.zeros((5, 4), np.float32))
    plans, kept = make_plan(groups, recipe(), observation, {})
    assert kept == dict.fromkeys(PATHS[:2], "its input was zero on every calibration image")
    assert len(plans) == 2


def test_weights_only_needs_no_statistics(groups):
    """Without activations there is nothing to observe."""
    plans, kept = make_plan(groups, recipe(precision="int8_weight_only"), None, {})
    assert [plan.statistics for plan in plans] == [None] * 3
    assert kept == {}


def test_constant_input_is_kept(observation):
    """A product of two constants is not the place for a range."""
    constant = ir.Value(name="constant")
    node = ir.node("MatMul", [constant, ir.Value(name="w")], name="a.b/MatMul")
    x = ir.val("x", dtype=ir.DataType.FLOAT, shape=ir.Shape([3, 4]))
    add = ir.node("Add", [x, node.outputs[0]], name="a.c/Add")
    arrays = {"constant": np.ones((3, 4), np.float32), "w": np.ones((4, 4), np.float32)}
    linears = find_linears(graph_of([node, add], [x], arrays))
    assert make_plan(group_by_activation(linears), recipe(), observation, {}) == (
        [],
        {"a.b": "its input is a constant"},
    )


def test_missing_statistics_are_refused(groups, observation):
    """The calibration was made for a graph without this activation."""
    del observation.activations[PATHS[2]]
    with pytest.raises(CalibrationError, match=rf"nothing of the input of {PATHS[2]}.*calibrate again"):
        make_plan(groups, recipe(), observation, {})


@pytest.mark.parametrize("symmetric", [True, False])
def test_override_chooses_the_method(groups, observation, symmetric):
    """The first override that matches decides, for this activation alone."""
    rules = ({"pattern": "*.down", "method": "percentile", "percentile": 90.0},)
    own = recipe(activations={"method": "max"}, override=rules)
    plans, _ = make_plan(groups, own, observation, {})
    first, second = (plan.value_range(own, symmetric=symmetric, smoothed=False) for plan in plans[:2])
    statistics = observation.activations[PATHS[0]].plain
    assert first == compute_range(statistics, "max", symmetric=symmetric)
    assert second == compute_range(statistics, "percentile", symmetric=symmetric, percentile=90.0)
    assert second.high < 0.8 * first.high


def test_ranges_for_the_outputs_look_at_the_weights(groups, observation):
    """With `output_mse`: a channel that both readers magnify keeps its outliers, as the weights are at that moment."""
    values = np.tile(VALUES, (100, 1))
    values[0, 2] = 40
    observation.activations[PATHS[0]] = observed(values)
    own = recipe(activations={"method": "output_mse"})
    plan = make_plan(groups, own, observation, {})[0][0]
    before = plan.value_range(own, symmetric=True, smoothed=False)
    for linear in plan.linears:
        weight = np.eye(4, dtype=np.float32)
        weight[2] *= 30
        linear.node.replace_input_with(1, ir.Value(name="smoothed", const_value=ir.tensor(weight)))
    after = plan.value_range(own, symmetric=True, smoothed=False)
    gain = [2, 2, 2 * 900, 2]
    statistics = observation.activations[PATHS[0]].plain
    assert after == compute_range(statistics, "output_mse", symmetric=True, channel_gain=gain)
    assert before.high < 0.8 * after.high


@pytest.mark.parametrize(
    ("operator", "shape", "attributes", "input_axis"),
    [
        ("MatMul", (5, 3), {}, 0),
        ("Gemm", (5, 3), {"transB": 0}, 0),
        ("Gemm", (3, 5), {"transB": 1}, 1),
        ("Conv", (3, 5, 2, 2), {}, 1),
    ],
)
@pytest.mark.parametrize("channels", [4, 5, 7])
def test_gain_of_a_channel(operator, shape, attributes, input_axis, channels):
    """Squared weights that read it, summed; padding beyond the statistics is left out, missing rows count as zero."""
    weight = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    model = linear_graph(operator, weight, **attributes)
    others = tuple(axis for axis in range(weight.ndim) if axis != input_axis)
    expected = np.zeros(channels)
    used = min(channels, 5)
    expected[:used] = np.square(weight.astype(np.float64)).sum(axis=others)[:used]
    found = find_linears(model)
    assert channel_gain(found, channels) == pytest.approx(expected)
    assert channel_gain(found * 2, channels) == pytest.approx(2 * expected)


def test_gain_of_weights_that_are_not_finite_is_refused():
    """A range from NaN would be wrong without a word."""
    weight = np.array([[np.nan, 1.0]], np.float32)
    with pytest.raises(QuantizationError, match=r"'block\.linear\.weight' holds 1 NaN"):
        channel_gain(find_linears(linear_graph("MatMul", weight)), 1)


def test_smoothed_range_is_taken_where_smoothed(groups, observation):
    """Else the plain one."""
    observation.activations[PATHS[0]] = observed(VALUES, np.array([1, 2, 4, 8], np.float32))
    plan = make_plan(groups, recipe(), observation, {})[0][0]
    plain, smoothed = (plan.value_range(recipe(), symmetric=False, smoothed=flag) for flag in (False, True))
    assert (plain.low, plain.high) == (VALUES.min(), VALUES.max())
    divided = VALUES / np.array([1, 2, 4, 8], np.float32)
    assert (smoothed.low, smoothed.high) == (divided.min(), divided.max())


def test_smoothing_that_was_not_observed_is_refused(groups, observation):
    """A plain range would be wrong for smoothed values."""
    plan = make_plan(groups, recipe(), observation, {})[0][0]
    with pytest.raises(CalibrationError, match=rf"nothing of the input of {PATHS[0]}"):
        plan.value_range(recipe(), symmetric=True, smoothed=True)


def test_range_that_does_not_exist_names_the_linear(groups, observation):
    """The message of the range search says of which input it speaks."""
    observation.activations[PATHS[0]].plain.count = 0
    plan = make_plan(groups, recipe(), observation, {})[0][0]
    with pytest.raises(CalibrationError, match=rf"input of {PATHS[0]}: no finite value was seen"):
        plan.value_range(recipe(), symmetric=True, smoothed=False)


def test_unknown_patterns_list_what_there_is(linears):
    """The message has the pattern, the blocks of the graph and the linears inside them."""
    rules = recipe(
        keep=(
            {"pattern": "tower.blocks.0.*", "reason": "fine"},
            {"pattern": "tower.blocks.7.*", "reason": "no"},
        ),
        override=({"pattern": "*.mpl.down", "method": "max"},),
    )
    with pytest.raises(QuantizationError) as caught:
        require_known_patterns(linears, rules)
    message = str(caught.value)
    assert "names tower.blocks.7.*, *.mpl.down, which" in message
    for part in ("tower.blocks.0", "projector.llm_projection", "attention.query", "mlp.down"):
        assert part in message
    require_known_patterns(linears, recipe(keep=({"pattern": "*.down", "reason": "fine"},)))

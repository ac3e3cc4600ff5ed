"""Outliers move from activations into weights without a change of what the network computes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from golden_cases import golden_case
from quantization.samples import graph_of, run_model, weight_of
from tolerances import TOLERANCES

from pargo_export.quantization.linears import find_linears
from pargo_export.quantization.observe import Observer, group_by_activation
from pargo_export.quantization.smooth import (
    NormSite,
    choose_factors,
    find_norm_site,
    scale_into_norm,
    smoothing_factors,
)

RANDOM = np.random.default_rng(20240902)
WIDTH = 12


def norm_graph(num_linears=2, *, offset=True, residual=False, operator="MatMul", padded=0):
    """Return a LayerNorm whose output some linears read, with large differences between its channels."""
    size = WIDTH + padded
    gain = np.exp(2 * RANDOM.standard_normal(size)).astype(np.float32)
    x = ir.val("x", dtype=ir.DataType.FLOAT, shape=ir.Shape([7, size]))
    weights = {"gain": gain, "offset": RANDOM.standard_normal(size).astype(np.float32)}
    gain_value, offset_value = ir.Value(name="gain"), ir.Value(name="offset")
    if padded:  # as the exporter writes out a LayerNorm over fewer channels than there are
        scaled = ir.node("Mul", [x, gain_value], name="norm/Mul")
        norm = ir.node("Add", [scaled.outputs[0], offset_value], name="norm/Add")
        nodes = [scaled, norm]
    else:
        inputs = [x, gain_value, offset_value] if offset else [x, gain_value]
        norm = ir.node("LayerNormalization", inputs, {"axis": -1}, name="norm/LayerNormalization")
        nodes = [norm]
        if not offset:
            del weights["offset"]
    norm.outputs[0].name = "normalised"
    norm.outputs[0].shape, norm.outputs[0].type = ir.Shape([7, size]), ir.TensorType(ir.DataType.FLOAT)
    attributes = {"transB": 1} if operator == "Gemm" else {}
    for index in range(num_linears):
        weights[f"w{index}"] = RANDOM.standard_normal((size, size)).astype(np.float32)
        weight = ir.Value(name=f"w{index}")
        nodes.append(ir.node(operator, [norm.outputs[0], weight], attributes, name=f"part{index}/{operator}"))
    outputs = [node.outputs[0] for node in nodes[-num_linears:]]
    if residual:
        nodes.append(ir.node("Neg", [norm.outputs[0]], name="other/Neg"))
        outputs.append(nodes[-1].outputs[0])
    for output in outputs:
        output.type = ir.TensorType(ir.DataType.FLOAT)
    return graph_of(nodes, [x], weights, outputs=outputs)


@pytest.mark.parametrize(
    "choices",
    [{}, {"num_linears": 1}, {"num_linears": 3}, {"offset": False}, {"padded": 4}],
    ids=["two-readers", "one-reader", "three-readers", "no-offset", "padded"],
)
def test_outputs_stay_the_same(choices):
    """Dividing gain and offset and multiplying the rows of every weight changes no output."""
    model = norm_graph(**choices)
    linears = find_linears(model)
    site = find_norm_site(linears)
    assert isinstance(site, NormSite)
    x = RANDOM.standard_normal(model.graph.inputs[0].shape.numpy()).astype(np.float32)
    before = run_model(model, x)
    activation = ir.Value(name="normalised")
    factors = np.exp(RANDOM.standard_normal(WIDTH)).astype(np.float32)
    gain = weight_of(model, "gain").copy()
    scale_into_norm(site, linears, factors)
    for expected, found in zip(before, run_model(model, x), strict=True):
        error = np.abs(found - expected).max()
        assert error <= TOLERANCES["smooth-float32"].value * max(1, np.abs(expected).max()), f"{error:.3g}"
    assert np.array_equal(weight_of(model, "gain")[:WIDTH], gain[:WIDTH] / factors)
    assert np.array_equal(weight_of(model, "gain")[WIDTH:], gain[WIDTH:])
    assert activation.name == linears[0].activation.name


@pytest.mark.parametrize("shared", ["gain", "w0"])
def test_other_readers_of_a_constant_keep_the_old_one(shared):
    """A constant that something else reads too is copied, not changed under its feet."""
    model = norm_graph(1)
    linears = find_linears(model)
    kept = ir.node("Identity", [model.graph.initializers[shared]], name="other/Identity")
    kept.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    model.graph.append(kept)
    model.graph.outputs.append(kept.outputs[0])
    x = RANDOM.standard_normal((7, WIDTH)).astype(np.float32)
    before = run_model(model, x)
    scale_into_norm(find_norm_site(linears), linears, np.full(WIDTH, 3, np.float32))
    found = run_model(model, x)
    assert np.array_equal(found[1], before[1])
    assert np.allclose(found[0], before[0], atol=TOLERANCES["smooth-float32"].value)


@pytest.mark.parametrize(
    ("choices", "reason"),
    [
        ({"residual": True}, "something else reads the same values"),
        ({"operator": "Gemm"}, "a weight is stored transposed"),
    ],
)
def test_refused_with_the_reason(choices, reason):
    """Where a division would change another reader, or the rows of the weight are not the channels."""
    assert reason in find_norm_site(find_linears(norm_graph(**choices)))


def test_graph_output_is_refused():
    """The user reads the same values."""
    model = norm_graph()
    linears = find_linears(model)
    model.graph.outputs.append(linears[0].activation)
    assert "something else reads the same values" in find_norm_site(linears)


def sites_of(graph):
    """Return the reason or the site of every activation of an exported graph, by the path of a linear."""
    groups = group_by_activation(find_linears(ir.load(graph)))
    return {path: find_norm_site(group) for path, group in groups.items()}


def test_where_smoothing_is_possible(float_bundle):
    """In front of the tower's linears, the context and the output; not inside the query layers, which normalise last."""
    found = sites_of(float_bundle / "onnx/fp32.onnx")
    possible = {path for path, site in found.items() if isinstance(site, NormSite)}
    parts = ("attention.qkv.merged", "attention.output", "mlp.gate_up.merged", "mlp.down")
    assert possible == {
        *(f"tower.blocks.{index}.{part}" for index in range(3) for part in parts),
        "projector.context.merged",
        "projector.llm_projection",
    }
    assert found["tower.patch_embedding"] == "a convolution reads it"
    for path, reason in found.items():
        if path.startswith("projector.layers."):
            expected = {"output": "it comes from", "down": "it comes from Gelu"}
            assert expected.get(path.rpartition(".")[2], "for example a residual") in reason, path


@pytest.mark.parametrize(
    ("variant", "readers"),
    [("fp32", 1), ("fp32-cuda", 1), ("unmerged", 3)],
    ids=["merged", "padded", "unmerged"],
)
def test_network_stays_the_same(float_bundle, variant, readers):
    """Smoothing all sites of an exported graph leaves the visual tokens as they were."""
    path = float_bundle / "onnx" / f"{variant}.onnx"
    images = golden_case("pargo_w2").images.numpy()
    observer = Observer(path, threads=1)
    observer.prepare([images[:1]], 0.7)
    observer.update(images[:1], "first")
    model = ir.load(path)
    before = run_model(model, images)[0]
    num_sites, largest, most_readers = 0, 1.0, 0
    for name, group in group_by_activation(find_linears(model)).items():
        factors = observer.observation.activations[name].factors
        if factors is not None:
            scale_into_norm(find_norm_site(group), group, factors)
            num_sites += 1
            largest = max(largest, float(factors.max()))
            most_readers = max(most_readers, len(group) if "attention" in name else 0)
    error = np.abs(run_model(model, images)[0] - before).max()
    assert num_sites == 14
    assert most_readers == readers
    assert largest > 1.5
    assert error <= TOLERANCES["smooth-network"].value, f"{error:.3g}"


def test_factors_by_hand():
    """Max |x| ** alpha / max |W| ** (1 - alpha), with a geometric mean of 1."""
    activation = np.array([1, 16, 4], np.float32)
    weights = [np.array([[1, -4], [1, 1], [0, 2]], np.float32), np.array([[1], [1], [-4]], np.float32)]
    found = smoothing_factors(activation, weights, 0.5)
    raw = np.sqrt(activation / np.array([4, 1, 4]))
    assert np.allclose(found, raw / np.prod(raw) ** (1 / 3), rtol=1e-6)
    assert found.dtype == np.float32


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_geometric_mean_is_one(alpha):
    """The overall magnitude stays where it was, which float16 likes."""
    activation = np.exp(3 * RANDOM.standard_normal(100)).astype(np.float32)
    weights = [RANDOM.standard_normal((100, 7)).astype(np.float32)]
    factors = smoothing_factors(activation, weights, alpha)
    assert (factors > 0).all()
    assert abs(np.log(factors.astype(np.float64)).mean()) < 1e-6


def test_limits_of_alpha():
    """At 1 every channel of the activation gets one magnitude, at 0 every row of the weights."""
    activation = np.exp(3 * RANDOM.standard_normal(50)).astype(np.float32)
    weight = RANDOM.standard_normal((50, 7)).astype(np.float32)
    even = activation / smoothing_factors(activation, [weight], 1.0)
    assert np.allclose(even, even[0], rtol=1e-5)
    rows = np.abs(weight * smoothing_factors(activation, [weight], 0.0)[:, None]).max(axis=1)
    assert np.allclose(rows, rows[0], rtol=1e-5)


def test_dead_channels_have_finite_factors():
    """A channel that is always zero, or that no weight reads, divides nothing by zero."""
    activation = np.array([0, 3, 0, 2], np.float32)
    weight = np.array([[1], [0], [0], [2]], np.float32)
    factors = smoothing_factors(activation, [weight], 0.5)
    assert np.isfinite(factors).all()
    assert (factors > 0).all()


def quantization_noise(tokens, weight, factors):
    """Power of the output error that rounding to 8 bits causes, tensor by tensor and channel by channel."""
    activation, scaled = tokens / factors, weight * factors[:, None]
    steps = (np.abs(activation).max() / 127, np.abs(scaled).max(axis=0) / 127)
    rounded = np.rint(activation / steps[0]) * steps[0] @ (np.rint(scaled / steps[1]) * steps[1])
    return float(((rounded - tokens @ weight) ** 2).mean())


@pytest.mark.parametrize("num_outliers", [0, 2, 20])
def test_chosen_factors_are_among_the_best(num_outliers):
    """Whatever the outliers, real rounding errors are close to the least that any exponent reaches, or none."""
    random = np.random.default_rng(num_outliers)
    tokens = random.standard_normal((200, 64), dtype=np.float32)
    tokens[:, :num_outliers] *= 60
    weight = random.standard_normal((64, 48), dtype=np.float32)
    largest, power = np.abs(tokens).max(axis=0), np.square(tokens).mean(axis=0)
    found = quantization_noise(tokens, weight, choose_factors(largest, power, [weight], 1.0))
    fixed = [np.ones(64, np.float32)]
    fixed += [smoothing_factors(largest, [weight], alpha) for alpha in np.linspace(0, 1, 9)]
    noise = [quantization_noise(tokens, weight, factors) for factors in fixed]
    assert found <= 1.25 * min(noise)
    assert max(noise) > 1.3 * min(noise)  # the choice matters


def test_no_factors_stronger_than_allowed():
    """The largest exponent is a bound: a small one leaves more of the outliers in the activation."""
    tokens = RANDOM.standard_normal((200, 64)).astype(np.float32)
    tokens[:, 5] *= 100
    weight = RANDOM.standard_normal((64, 48)).astype(np.float32)
    largest, power = np.abs(tokens).max(axis=0), np.square(tokens).mean(axis=0)
    left = [
        float((largest / choose_factors(largest, power, [weight], strongest)).max())
        for strongest in (0.2, 1.0)
    ]
    assert left[0] > 2 * left[1]

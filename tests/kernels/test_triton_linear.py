"""The fused linear equals its definition, and the definition equals norm, linear, GELU and sum one by one."""

from __future__ import annotations

import itertools

import pytest
import torch
from tolerances import TOLERANCES
from torch.nn import functional

from pargo_kernels import reference_linear, triton_linear
from pargo_kernels.reference_linear import NormalisedResidual, fold_norm, fused_linear, row_statistics
from pargo_kernels.triton_linear import Tiles, choose_tiles, explain_fused_linear

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SMALL = Tiles(16, 32, 32, 4, 2)
EPS = 1e-6

_seeds = itertools.count(31_007)


def random(*shape, dtype=torch.float32, mean=0.0):
    """Return normal values on the device under test, other ones at every call."""
    generator = torch.Generator().manual_seed(next(_seeds))
    return (torch.randn(shape, generator=generator) + mean).to(DEVICE, dtype)


def relative_error(found, expected):
    """Return ‖found - expected‖ / ‖expected‖; NaN if anything was left unwritten."""
    return float((found.double() - expected.double()).norm() / expected.double().norm())


@pytest.fixture
def poisoned(monkeypatch):
    """Fill what the wrapper allocates with NaN, so that an element that no program writes shows."""
    empty = torch.empty

    def poison(*arguments, **options):
        return empty(*arguments, **options).fill_(float("nan"))

    monkeypatch.setattr(triton_linear.torch, "empty", poison)


@pytest.fixture(params=[(9, 0), (8, 0)], ids=["descriptors", "pointers"])
def capability(request, monkeypatch):
    """Take the kernel's path of a compute capability: tiles by the copy engine, or loads by the warps."""
    if DEVICE == "cuda" and torch.cuda.get_device_capability() < request.param:
        pytest.skip("this GPU has no copy engine")
    monkeypatch.setattr(triton_linear, "capability_of", lambda _: request.param)
    return request.param


class Case:
    """A fused linear with everything in it, and the same step by step in float64."""

    def __init__(self, dtype, batch=2, tokens=19, depth=48, columns=56, residual_batch=2, mean=0.0):
        self.x = random(batch, tokens, depth, dtype=dtype, mean=mean)
        self.weight, self.bias = random(columns, depth, dtype=dtype) * 0.2, random(columns, dtype=dtype)
        self.gain, self.shift = 1 + 0.3 * random(depth), 0.3 * random(depth)
        self.folded = fold_norm(self.weight, self.bias, self.gain, self.shift, EPS)
        self.plain = fold_norm(self.weight, self.bias)
        self.residual = random(residual_batch, tokens, columns, dtype=dtype, mean=1.0)
        gain, shift = 1 + 0.3 * random(columns), 0.3 * random(columns)
        self.residual_norm = NormalisedResidual(row_statistics(self.residual, 32), gain, shift, EPS)

    def expected(self, *, norm, gelu, residual, residual_norm):
        """Compute in float64, one operation after the other."""
        values = self.x.double()
        if norm:
            values = functional.layer_norm(
                values, values.shape[-1:], self.gain.double(), self.shift.double(), EPS
            )
        values = functional.linear(values, self.weight.double(), self.bias.double())
        values = functional.gelu(values) if gelu else values
        if residual:
            kept, how = self.residual.double(), self.residual_norm
            if residual_norm:
                kept = functional.layer_norm(
                    kept, kept.shape[-1:], how.gain.double(), how.shift.double(), EPS
                )
            values = values + kept
        return values

    def arguments(self, *, norm, gelu, residual, residual_norm):
        """Return the linear and the keywords for both implementations."""
        keywords = {
            "statistics": row_statistics(self.x, 16) if norm else None,
            "activation": "gelu" if gelu else "none",
            "residual": self.residual if residual else None,
            "residual_norm": self.residual_norm if residual_norm else None,
        }
        return (self.folded if norm else self.plain), keywords


PARTS = [
    {"norm": False, "gelu": False, "residual": False, "residual_norm": False},
    {"norm": True, "gelu": False, "residual": False, "residual_norm": False},
    {"norm": True, "gelu": True, "residual": False, "residual_norm": False},
    {"norm": False, "gelu": False, "residual": True, "residual_norm": False},
    {"norm": False, "gelu": False, "residual": True, "residual_norm": True},
    {"norm": True, "gelu": True, "residual": True, "residual_norm": True},
]


def name_of(parts):
    """Name the parts that are on."""
    return "+".join(name for name, on in parts.items() if on) or "plain"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("parts", PARTS, ids=name_of)
def test_reference_equals_the_steps_one_by_one(parts, dtype):
    """Norm, product, GELU and residual in float64 agree with the definition, where weights are rounded once more."""
    case = Case(dtype)
    linear, keywords = case.arguments(**parts)
    found, _ = fused_linear(case.x, linear, **keywords)
    assert relative_error(found, case.expected(**parts)) < TOLERANCES[f"fused-{str(dtype)[6:]}"].value


@pytest.mark.usefixtures("poisoned", "capability")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("parts", PARTS, ids=name_of)
def test_kernel_equals_the_reference(parts, dtype):
    """Every combination of parts, with rows, columns and depth that no tile divides."""
    case = Case(dtype)
    linear, keywords = case.arguments(**parts)
    expected, expected_statistics = fused_linear(case.x, linear, **keywords, keep_statistics=True)
    found, statistics = triton_linear.fused_linear(
        case.x, linear, **keywords, keep_statistics=True, tiles=SMALL
    )
    limit = TOLERANCES[f"fused-{str(dtype)[6:]}"].value
    assert relative_error(found, expected) < limit
    for part, expected_part in zip(statistics.combine(EPS), expected_statistics.combine(EPS), strict=True):
        assert relative_error(part, expected_part) < limit


@pytest.mark.usefixtures("poisoned", "capability")
@pytest.mark.parametrize("depth", [8, 32, 40, 64])
def test_any_depth(depth):
    """One step, several, and a last one that is not full: what lies beyond the depth is not multiplied."""
    case = Case(torch.float16, batch=1, tokens=17, depth=depth, residual_batch=1)
    linear, keywords = case.arguments(**PARTS[-1])
    expected, _ = fused_linear(case.x, linear, **keywords)
    found, _ = triton_linear.fused_linear(case.x, linear, **keywords, tiles=SMALL)
    assert relative_error(found, expected) < TOLERANCES["fused-float16"].value


@pytest.mark.parametrize("chip", [(8, 0), (8, 9), (9, 0), (12, 0)])
def test_descriptors_from_compute_capability_9_on(chip):
    """Tensors go to the kernel as they are where there is no copy engine, as descriptors where there is one."""
    case = Case(torch.float16)
    call = triton_linear.launch_fused_linear(
        *(case.x, case.plain, random(2, 19, 56, dtype=torch.float16)), tiles=SMALL, capability=chip
    )
    are_tensors = [isinstance(argument, torch.Tensor) for argument in call.arguments[:2]]
    assert are_tensors == [chip < (9, 0)] * 2
    assert call.options["DESCRIPTORS"] == (chip >= (9, 0))


@pytest.mark.usefixtures("poisoned", "capability")
@pytest.mark.parametrize("columns", [32, 33, 64, 80])
@pytest.mark.parametrize("tokens", [1, 16, 17])
def test_any_number_of_rows_and_columns(tokens, columns):
    """Tiles at the edges write exactly what belongs to them."""
    case = Case(torch.float16, batch=1, tokens=tokens, columns=columns, residual_batch=1)
    linear, keywords = case.arguments(**PARTS[-1])
    expected, _ = fused_linear(case.x, linear, **keywords)
    found, _ = triton_linear.fused_linear(case.x, linear, **keywords, tiles=SMALL)
    assert relative_error(found, expected) < TOLERANCES["fused-float16"].value


def test_one_residual_serves_every_image():
    """A constant residual of batch 1 is added to each image, and normalised with its own statistics."""
    case = Case(torch.float16, batch=3, residual_batch=1)
    linear, keywords = case.arguments(norm=True, gelu=False, residual=True, residual_norm=True)
    expected, _ = fused_linear(case.x, linear, **keywords)
    found, _ = triton_linear.fused_linear(case.x, linear, **keywords, tiles=SMALL)
    assert relative_error(found, expected) < TOLERANCES["fused-float16"].value
    assert relative_error(found[0] - found[1], expected[0] - expected[1]) < 0.01


def test_a_large_mean_does_not_cancel():
    """Rows with mean 30 and deviation 1 lose no more than float16 rounding of the rows themselves."""
    case = Case(torch.float16, mean=30.0)
    linear, keywords = case.arguments(**PARTS[1])
    expected = case.expected(**PARTS[1])
    for implementation in (reference_linear.fused_linear, triton_linear.fused_linear):
        found, _ = implementation(case.x, linear, **keywords)
        # The weights are rounded to 2^-11, and each rounding error meets the mean: 30 / 2^11 / sqrt(12) of a weight.
        assert relative_error(found, expected) < 0.02


def test_the_statistics_of_one_linear_serve_the_next():
    """Two linears with a norm between, the second fed by the first one's statistics."""
    case = Case(torch.float16)
    linear, keywords = case.arguments(**PARTS[3])
    hidden, statistics = triton_linear.fused_linear(
        case.x, linear, **keywords, keep_statistics=True, tiles=SMALL
    )
    gain, shift = 1 + 0.3 * random(56), 0.3 * random(56)
    weight = random(24, 56, dtype=torch.float16) * 0.2
    found, _ = triton_linear.fused_linear(
        hidden, fold_norm(weight, None, gain, shift, EPS), statistics=statistics, tiles=SMALL
    )
    normalised = functional.layer_norm(hidden.double(), (56,), gain.double(), shift.double(), EPS)
    expected = functional.linear(normalised, weight.double())
    assert relative_error(found, expected) < TOLERANCES["fused-float16"].value


def test_result_in_float32():
    """The last linear of the projector writes what the signature promises."""
    case = Case(torch.float16)
    found, _ = triton_linear.fused_linear(case.x, case.plain, dtype=torch.float32, tiles=SMALL)
    expected, _ = fused_linear(case.x, case.plain, dtype=torch.float32)
    assert found.dtype == torch.float32
    assert relative_error(found, expected) < TOLERANCES["fused-float16"].value


@pytest.mark.parametrize("capability", [(8, 0), (8, 7), (8, 9), (9, 0), (12, 0)])
@pytest.mark.parametrize("rows", [304, 304 * 8])
@pytest.mark.parametrize("columns", [512, 1536, 2048, 4096])
def test_chosen_tiles_fit_the_chip(columns, rows, capability):
    """The steps in flight fit into 100 KB of shared memory, or 227 KB where copies are the engine's."""
    tiles = choose_tiles(rows, columns, capability)
    needed = (tiles.rows + tiles.columns) * tiles.depth * 2 * tiles.num_stages
    assert needed <= (227 if capability[0] == 9 else 99) * 1024


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": random(2, 19, 40, dtype=torch.float16)}, "expected \\[batch, tokens, 48\\]"),
        ({"statistics": None}, "belong together"),
        ({"residual": random(2, 18, 56, dtype=torch.float16)}, "residual has shape"),
        ({"residual": None}, "without a residual"),
    ],
    ids=["x", "statistics", "residual", "norm-alone"],
)
@pytest.mark.parametrize("function", [reference_linear.fused_linear, triton_linear.fused_linear])
def test_wrong_shapes_are_refused(function, change, message):
    """Both implementations say what was found and expected."""
    case = Case(torch.float16)
    linear, keywords = case.arguments(**PARTS[-1])
    arguments = {"x": case.x, **keywords, **change}
    with pytest.raises(ValueError, match=message):
        function(arguments.pop("x"), linear, **arguments)


def test_what_the_kernel_cannot_take_is_explained():
    """Float32, a layout with gaps and an odd depth are refused with the reason."""
    case = Case(torch.float16)
    assert explain_fused_linear(case.x, case.plain) is None
    assert "float32" in explain_fused_linear(case.x.float(), case.plain)
    assert "contiguous" in explain_fused_linear(case.x.transpose(0, 1), case.plain)
    odd = fold_norm(random(8, 42, dtype=torch.float16), None)
    assert "multiple of 8" in explain_fused_linear(random(1, 4, 42, dtype=torch.float16), odd)
    with pytest.raises(ValueError, match="multiple of 8"):
        triton_linear.fused_linear(random(1, 4, 42, dtype=torch.float16), odd)

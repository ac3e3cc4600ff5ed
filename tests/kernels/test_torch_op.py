"""The attentions as PyTorch operators."""

from __future__ import annotations

import pytest
import torch
from tolerances import TOLERANCES

from pargo_kernels import reference, torch_op

SIZES = {"num_heads": 2, "num_partial": 4, "num_global": 2, "scale": 0.5}
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def cross_inputs(device="cpu", query_batch=1):
    """Return query, key and value: 6 queries, 12 image tokens, width 8, batch 3."""
    generator = torch.Generator().manual_seed(11)
    shapes = ((query_batch, 6, 8), (3, 12, 8), (3, 12, 8))
    return tuple(torch.randn(shape, generator=generator).to(device) for shape in shapes)


def self_inputs(device="cpu"):
    """Return three chunks of one projection: rows further apart than they are wide."""
    return torch.randn((3, 6, 24), generator=torch.Generator().manual_seed(12)).to(device).chunk(3, dim=-1)


CASES = {
    "partial_global": ("partial_global_attention", cross_inputs, {}),
    "block_diagonal": ("block_diagonal_attention", self_inputs, {}),
    "block_diagonal_window": ("block_diagonal_attention", self_inputs, {"partial_window": 3}),
}


@pytest.fixture(params=CASES)
def case(request):
    """Operator name, maker of inputs, arguments."""
    name, inputs, more = CASES[request.param]
    return name, inputs, SIZES | more


class Twice(torch.nn.Module):
    """Cross-attention, then self-attention of what it gave."""

    def forward(self, query, key, value):
        """`[B or 1, Q, C]` and `[B, N, C]` -> `[B, Q, C]`."""
        tokens = torch.ops.pargo.partial_global_attention(query, key, value, **SIZES)
        return torch.ops.pargo.block_diagonal_attention(tokens, tokens, 2 * tokens, **SIZES)


@pytest.mark.parametrize("device", DEVICES)
def test_computes_the_reference(case, device):
    """The operator is what dispatch picks for the tensors' device."""
    name, inputs, arguments = case
    tensors = inputs(device)
    expected = getattr(reference, name)(*tensors, **arguments)
    result = getattr(torch.ops.pargo, name)(*tensors, **arguments)
    torch.testing.assert_close(result, expected, rtol=0, atol=TOLERANCES["function-float32"].value)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")  # inside PyTorch's own checks
def test_pytorch_accepts_the_operator(case, device):
    """`opcheck`: schema, fake tensors, functionalisation, static and dynamic shapes."""
    name, inputs, arguments = case
    operator = getattr(torch.ops.pargo, name).default
    for check in ("test_schema", "test_autograd_registration", "test_faketensor"):
        assert (
            torch.library.opcheck(operator, inputs(device), arguments, test_utils=check)[check] == "SUCCESS"
        )
    for check in ("test_aot_dispatch_static", "test_aot_dispatch_dynamic"):
        assert (
            torch.library.opcheck(operator, inputs(device), arguments, test_utils=check)[check] == "SUCCESS"
        )


def test_schemas_are_stable():
    """Exported programs name these arguments."""
    assert str(torch.ops.pargo.partial_global_attention.default._schema) == (
        "pargo::partial_global_attention(Tensor query, Tensor key, Tensor value, *, SymInt num_heads, "
        "SymInt num_partial, SymInt num_global, float scale) -> Tensor"
    )
    assert str(torch.ops.pargo.block_diagonal_attention.default._schema) == (
        "pargo::block_diagonal_attention(Tensor query, Tensor key, Tensor value, *, SymInt num_heads, "
        "SymInt num_partial, SymInt num_global, float scale, SymInt partial_window=0) -> Tensor"
    )


def test_fake_tensors_have_the_right_shape():
    """The batch is the keys', tokens and dtype are the query's."""
    with torch._subclasses.FakeTensorMode():
        query = torch.empty(1, 6, 8, dtype=torch.float16)
        key = torch.empty(5, 12, 8, dtype=torch.float16)
        result = torch_op.partial_global_attention(query, key, key, **SIZES)
    assert (tuple(result.shape), result.dtype) == ((5, 6, 8), torch.float16)


def test_there_is_no_gradient():
    """`backward` is an error and not a silent zero."""
    query, key, value = cross_inputs()
    key.requires_grad_()
    result = torch.ops.pargo.partial_global_attention(query, key, value, **SIZES)
    with pytest.raises(RuntimeError, match="no autograd formula was registered"):
        result.sum().backward()


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_torch_compile_keeps_it_whole():
    """No graph break, and the compiled module computes the same, at a second batch size too."""
    module, tensors = Twice(), cross_inputs()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        assert torch.equal(compiled(*tensors), module(*tensors))
        fewer = (tensors[0], tensors[1][:2], tensors[2][:2])
        assert torch.equal(compiled(*fewer), module(*fewer))


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_torch_export_keeps_it_whole():
    """Each operator is one node of the exported program, with a dynamic batch."""
    tensors = cross_inputs()
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(Twice(), tensors, dynamic_shapes=({}, {0: batch}, {0: batch}))
    targets = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert targets.count("pargo.partial_global_attention.default") == 1
    assert targets.count("pargo.block_diagonal_attention.default") == 1
    assert not [target for target in targets if "matmul" in target or "softmax" in target]
    larger = (tensors[0], *(torch.cat([part, part]) for part in tensors[1:]))
    assert torch.equal(program.module()(*larger), Twice()(*larger))

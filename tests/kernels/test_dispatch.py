"""Which implementation computes an operation, and why."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import typing

import pytest
import torch
from tolerances import TOLERANCES

import pargo_kernels
from pargo_kernels import Quantize, UnsupportedError, dispatch, explain_unsupported, support
from pargo_kernels.partial_global_plan import SplitWorkspace

SIZES = {"num_heads": 2, "num_partial": 3, "num_global": 2, "scale": 0.5}
ONE = torch.ones(1)
# Where the kernels run in this process: interpreted on the CPU, unless there is a GPU (tests/conftest.py).
for _operation in support.OPERATIONS:  # while the environment says so: tests below change it
    support._module(support._MODULES[_operation][1])
DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") else "cuda"


@pytest.fixture
def without_interpreter(monkeypatch):
    """As on a machine where Triton compiles."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


@pytest.fixture
def interpreter(monkeypatch):
    """Triton runs its kernels on CPU tensors."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")


def qkv(dtype=torch.float32, device="cpu"):
    """Return query, key and value of 5 queries and 6 image tokens."""
    generator = torch.Generator().manual_seed(4)
    shapes = ((1, 5, 8), (2, 6, 8), (2, 6, 8))
    return tuple(torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes)


@pytest.fixture
def triton_stub(monkeypatch):
    """Replace the Triton kernel by something that is told apart from the reference."""
    module = support._module("triton_partial_global")
    monkeypatch.setattr(module, "partial_global_attention", lambda *_args, **_kwargs: "from Triton")


@pytest.fixture
def pretend_gpu(monkeypatch):
    """Let CPU tensors pass for tensors on a GPU of the capability that is set."""
    found = {"capability": (9, 0)}
    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda _: True))
    monkeypatch.setattr(support, "_capability", lambda _: found["capability"])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: found["capability"])
    return found


def same_signature(operation):
    """Compare an operation's signatures in dispatch, reference and kernel."""
    reference, kernel = (support._module(name) for name in support._MODULES[operation])
    public = dict(inspect.signature(getattr(dispatch, operation)).parameters)
    assert public.pop("implementation").default == "auto"
    for module, only_for_kernels in ((reference, ["workspace"]), (kernel, [])):
        parameters = inspect.signature(getattr(module, operation)).parameters
        expected = [name for name in public if name not in only_for_kernels]
        assert [name for name in parameters if name in public] == expected
        for name in expected:
            found = parameters[name]
            assert (found.kind, found.default) == (public[name].kind, public[name].default), name


@pytest.mark.parametrize("operation", support.OPERATIONS)
def test_all_implementations_take_the_same(operation):
    """Parameters, their kinds and defaults agree; a kernel may take more, for tuning."""
    same_signature(operation)


@pytest.mark.parametrize("operation", support.OPERATIONS)
def test_every_operation_is_public(operation):
    """The package re-exports each operation, typed."""
    assert getattr(pargo_kernels, operation) is getattr(dispatch, operation)
    assert "return" in typing.get_type_hints(getattr(dispatch, operation))


def test_the_package_has_what_it_lists():
    """Every public name is there, and an unknown one is an AttributeError."""
    assert [name for name in pargo_kernels.__all__ if not hasattr(pargo_kernels, name)] == []
    with pytest.raises(AttributeError, match="no attribute 'flash'"):
        _ = pargo_kernels.flash


def test_importing_the_package_does_not_import_triton():
    """Neither the package nor a call on CPU tensors needs Triton."""
    script = (
        "import sys, torch, pargo_kernels;"
        "x = torch.ones(1, 2, 4);"
        "pargo_kernels.scale_bias(x);"
        "assert 'triton' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


@pytest.mark.usefixtures("without_interpreter", "triton_stub")
def test_cpu_tensors_go_to_the_reference():
    """`auto` uses plain PyTorch there, and `triton` says why it cannot."""
    expected = pargo_kernels.reference.partial_global_attention(*qkv(), **SIZES)
    assert torch.equal(dispatch.partial_global_attention(*qkv(), **SIZES), expected)
    with pytest.raises(
        UnsupportedError, match=r"partial_global_attention: .* on the device cpu, not on a CUDA GPU"
    ):
        dispatch.partial_global_attention(*qkv(), **SIZES, implementation="triton")


@pytest.mark.usefixtures("interpreter", "triton_stub")
def test_the_interpreter_is_used_only_on_request():
    """It is a test tool: `auto` stays with the reference, `triton` gets the kernel."""
    assert torch.is_tensor(dispatch.partial_global_attention(*qkv(), **SIZES))
    assert dispatch.partial_global_attention(*qkv(), **SIZES, implementation="triton") == "from Triton"
    assert explain_unsupported("partial_global_attention", *qkv(), **SIZES) is None


@pytest.mark.usefixtures("pretend_gpu", "triton_stub")
def test_fallbacks_are_recorded():
    """What a benchmark must know: which operation fell back, and why; nothing is recorded outside."""
    doubles = [tensor.double() for tensor in qkv()]
    dispatch.partial_global_attention(*doubles, **SIZES)
    with support.record_fallbacks() as reasons:
        assert dispatch.partial_global_attention(*qkv(), **SIZES) == "from Triton"
        assert reasons == set()
        dispatch.partial_global_attention(*doubles, **SIZES)
    (reason,) = reasons
    assert reason.startswith("partial_global_attention: query is torch.float64")
    assert "the reference in plain PyTorch is used instead" in reason


@pytest.mark.usefixtures("pretend_gpu", "triton_stub")
def test_cuda_tensors_go_to_the_kernel():
    """`auto` uses Triton there, unless the reference is asked for."""
    assert dispatch.partial_global_attention(*qkv(), **SIZES) == "from Triton"
    reference = dispatch.partial_global_attention(*qkv(), **SIZES, implementation="reference")
    assert torch.is_tensor(reference)


@pytest.mark.usefixtures("pretend_gpu")
def test_the_workspace_reaches_only_the_kernel(monkeypatch):
    """The reference has no use for it and does not know the argument."""
    module = support._module("triton_partial_global")
    monkeypatch.setattr(module, "partial_global_attention", lambda *_args, **kwargs: kwargs["workspace"])
    workspace = SplitWorkspace(ONE, ONE)
    assert dispatch.partial_global_attention(*qkv(), **SIZES, workspace=workspace) is workspace
    reference = {"workspace": workspace, "implementation": "reference"}
    assert torch.is_tensor(dispatch.partial_global_attention(*qkv(), **SIZES, **reference))


@pytest.mark.usefixtures("pretend_gpu", "triton_stub")
def test_unsupported_cuda_tensors_go_to_the_reference():
    """The kernel's own reason counts: float64 has no kernel."""
    inputs = qkv(torch.float64)
    assert dispatch.partial_global_attention(*inputs, **SIZES).dtype == torch.float64
    with pytest.raises(UnsupportedError, match="float64"):
        dispatch.partial_global_attention(*inputs, **SIZES, implementation="triton")


@pytest.mark.usefixtures("without_interpreter")
def test_the_explanation_says_what_happens_instead():
    """One sentence: operation, reason, consequence."""
    assert explain_unsupported("partial_global_attention", *qkv(), **SIZES) == (
        "partial_global_attention: the tensors are on the device cpu, not on a CUDA GPU; the reference in plain "
        "PyTorch is used instead"
    )


@pytest.mark.parametrize(
    ("capability", "dtype", "reason"),
    [
        ((7, 5), torch.int8, "capability 7.5, and the kernels need at least 8.0"),
        ((8, 0), torch.int8, None),
        ((8, 7), torch.float8_e4m3fn, "capability 8.7, and FP8 results need at least 8.9"),
        ((8, 9), torch.float8_e4m3fn, None),
        ((12, 0), torch.float8_e4m3fn, None),
    ],
)
def test_old_gpus_are_refused(pretend_gpu, capability, dtype, reason):
    """Below 8.0 nothing runs, below 8.9 no FP8."""
    pretend_gpu["capability"] = capability
    quantize = Quantize(ONE, dtype)
    found = explain_unsupported("scale_bias", torch.ones(1, 2, 16), quantize=quantize)
    assert found is None if reason is None else reason in found


@pytest.mark.usefixtures("pretend_gpu", "triton_stub")
def test_without_triton(monkeypatch):
    """A GPU alone is not enough."""
    monkeypatch.setattr(support, "_has_triton", lambda: False)
    assert "Triton is not installed" in explain_unsupported("scale_bias", torch.ones(1, 2, 4))
    assert torch.is_tensor(dispatch.partial_global_attention(*qkv(), **SIZES))


@pytest.mark.usefixtures("pretend_gpu")
def test_rocm_is_refused(monkeypatch):
    """PyTorch calls AMD's devices cuda too."""
    monkeypatch.setattr(torch.version, "hip", "6.2")
    assert "ROCm" in explain_unsupported("scale_bias", torch.ones(1, 2, 4))


@pytest.mark.usefixtures("interpreter")
def test_tensors_that_want_a_gradient_are_refused():
    """A kernel would return a result without history and nobody would notice."""
    x = torch.ones(1, 2, 4, requires_grad=True, device=DEVICE)
    assert "no gradient" in explain_unsupported("scale_bias", x)
    with torch.inference_mode():
        assert explain_unsupported("scale_bias", x) is None


@pytest.mark.usefixtures("interpreter")
def test_tensors_on_two_devices_are_refused():
    """Also if the stray one is the scale of a quantization."""
    quantize = Quantize(torch.ones(1, device="meta"), torch.int8)
    reason = explain_unsupported("scale_bias", torch.ones(1, 2, 4), quantize=quantize)
    assert "different devices (cpu, meta)" in reason


def test_wrong_names_list_the_choices():
    """Both strings are checked, whatever the tensors."""
    with pytest.raises(ValueError, match=r"unknown operation 'attend'; known are bias_gelu, block_"):
        explain_unsupported("attend", ONE)
    with pytest.raises(
        ValueError, match="unknown implementation 'cuda'; choose one of auto, reference, triton"
    ):
        dispatch.bias_gelu(torch.ones(1, 2, 4), implementation="cuda")


@pytest.mark.parametrize("operation", support.OPERATIONS)
def test_arguments_reach_the_implementation(monkeypatch, operation):
    """Every argument arrives under its own name, also those that are left out by most callers."""
    monkeypatch.setattr(dispatch, "choose", lambda *_: lambda *args, **kwargs: (args, kwargs))
    public = getattr(dispatch, operation)
    given = {
        name: object()
        for name in inspect.signature(public).parameters
        if name not in {"implementation", "workspace"}
    }
    positional, keywords = public(**given)
    names = inspect.signature(getattr(support._module(support._MODULES[operation][0]), operation)).parameters
    assert dict(zip(names, positional, strict=False)) | keywords == given


@pytest.mark.parametrize("operation", support.OPERATIONS)
def test_the_choice_is_asked_about_this_operation(monkeypatch, operation):
    """With its own name, the wish of the caller, and all tensors."""
    asked = []
    monkeypatch.setattr(
        dispatch, "choose", lambda *args: asked.append(args) or (lambda *_args, **_kwargs: None)
    )
    public = getattr(dispatch, operation)
    given = {name: object() for name in inspect.signature(public).parameters if name != "implementation"}
    public(**given, implementation="triton")
    ((name, implementation, tensors, arguments),) = asked
    assert (name, implementation) == (operation, "triton")
    given.pop("workspace", None)
    assert set(tensors) | set(arguments.values()) == set(given.values())


def test_the_interpreted_kernels_compute_the_references():
    """One call through the front door by each implementation; the kernels' own tests are beside them."""
    tensors = qkv(device=DEVICE)
    found = [
        dispatch.partial_global_attention(*tensors, **SIZES, implementation=implementation)
        for implementation in ("reference", "triton")
    ]
    torch.testing.assert_close(*found, rtol=0, atol=TOLERANCES["function-float32"].value)

"""The `pargo::` nodes as `IPluginV3`: what plugin and creator answer when TensorRT asks, with TensorRT-RTX's classes."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest
from fake_cuda_driver import FakeCudaDriver

from pargo_kernels import cubin_launcher, trt_plugin
from pargo_kernels.cubin_launcher import CompiledKernel
from pargo_kernels.trt_interfaces import AttentionPlugin, attribute_fields
from pargo_kernels.trt_launch import AttentionLaunch, AttentionNode, AttentionShape

trt = pytest.importorskip("tensorrt_rtx")

ATTRIBUTES = {"num_heads": 2, "num_partial": 6, "num_global": 2, "window": 3}
LAUNCH = AttentionLaunch(
    CompiledKernel("kernel", b"\x7fELF\x00\n", ("*fp16", "*fp16", "*fp16", "*fp16", "i32"), 4, 512),
    AttentionShape("float16", num_queries=8, num_keys=18, width=32, batch=2),
    programs=2,
    blocks=5,
)


class Compiler:
    """Stands for Triton: keeps what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[AttentionNode, AttentionShape]] = []

    def check(self) -> None:
        """Agree."""

    def __call__(self, node: AttentionNode, shape: AttentionShape) -> AttentionLaunch:
        """Return the same launch for everything."""
        self.asked.append((node, shape))
        return LAUNCH


@pytest.fixture
def creators() -> Iterator[dict[str, Any]]:
    """The registered creators by name, with a compiler that needs no Triton."""
    registered = trt_plugin.register_plugins(trt, compute_capability=89)
    for creator in registered:
        creator.compiler = Compiler()
    yield {creator.name: creator for creator in registered}
    trt_plugin.deregister_plugins(trt, registered)


_memory: list[Any] = []  # what the fields of all tests point into


def fields(**attributes: float) -> Any:
    """A field collection as the ONNX parser makes it from a node."""
    made, buffers = attribute_fields(trt, list(attributes), list(attributes.values()))
    _memory.append(buffers)
    return trt.PluginFieldCollection(made)


def tensor_desc(
    dims: tuple[int, ...], dtype: Any = trt.float16, layout: Any = trt.TensorFormat.LINEAR
) -> Any:
    """What TensorRT says of a tensor when it runs."""
    desc = trt.PluginTensorDesc()
    desc.dims, desc.type, desc.format = trt.Dims(dims), dtype, layout
    return desc


def dynamic_desc(dims: tuple[int, ...], opt: int = 1, **kinds: Any) -> Any:
    """What TensorRT says of a tensor while it builds; -1 for the batch."""
    dynamic = trt.DynamicPluginTensorDesc()
    dynamic.desc = tensor_desc(dims, **kinds)
    dynamic.opt = trt.Dims([opt if size < 0 else size for size in dims])
    return dynamic


@pytest.mark.parametrize("module", ["tensorrt_rtx", "tensorrt"])
def test_methods_are_those_of_the_interfaces(module: str) -> None:
    """What the plugin and the creator define is what TensorRT calls; a misspelt method would never be."""
    library = pytest.importorskip(module, exc_type=ImportError)
    capabilities = (
        library.IPluginV3,
        library.IPluginV3OneCore,
        library.IPluginV3OneBuild,
        library.IPluginV3OneRuntime,
    )
    called = {name for capability in capabilities for name in dir(capability)}
    assert {name for name in vars(AttentionPlugin) if not name.startswith("_")} - {
        "trt",
        "interfaces",
    } <= called
    assert {"create_plugin", "field_names", "name", "plugin_version"} <= set(dir(library.IPluginCreatorV3One))
    attributes = {"plugin_name", "plugin_namespace", "plugin_version", "num_outputs", "timing_cache_id"}
    assert attributes <= called


@pytest.mark.parametrize("operation", ["PartialGlobalAttention", "BlockDiagonalAttention"])
def test_creator_is_found_under_the_name_of_the_node(creators: dict[str, Any], operation: str) -> None:
    """The registry knows it, with the attributes of the node as fields."""
    found = trt.get_plugin_registry().get_creator(operation, "1", "")
    assert found is creators[operation]
    assert [field.name for field in found.field_names] == [*ATTRIBUTES, "scale"]


@pytest.mark.usefixtures("creators")
def test_name_that_is_taken_is_refused() -> None:
    """Registering twice is an error that names the plugin."""
    with pytest.raises(RuntimeError, match="refused the plugin 'PartialGlobalAttention' in the namespace ''"):
        trt_plugin.register_plugins(trt)


def test_plugin_takes_the_attributes(creators: dict[str, Any]) -> None:
    """A scale that the node leaves out is 1."""
    creator = creators["PartialGlobalAttention"]
    plugin = creator.create_plugin("layer", fields(**ATTRIBUTES, scale=0.25), trt.TensorRTPhase.BUILD)
    assert plugin.node == AttentionNode("PartialGlobalAttention", 2, 6, 2, 3, 0.25)
    plugin = creator.create_plugin("layer", fields(**ATTRIBUTES), trt.TensorRTPhase.BUILD)
    assert plugin.node.scale == 1.0


def test_missing_attribute_is_named(creators: dict[str, Any]) -> None:
    """A node of another exporter is refused."""
    with pytest.raises(ValueError, match="PartialGlobalAttention without num_partial, window"):
        creators["PartialGlobalAttention"].create_plugin(
            "layer", fields(num_heads=2, num_global=2), trt.TensorRTPhase.BUILD
        )


@pytest.mark.parametrize(
    ("position", "kinds", "expected"),
    [
        (0, [{}], True),
        (0, [{"dtype": trt.bfloat16}], True),
        (0, [{"dtype": trt.float32}], True),
        (0, [{"dtype": trt.int32}], False),
        (0, [{"layout": trt.TensorFormat.CHW32}], False),
        (1, [{}, {}], True),
        (1, [{}, {"dtype": trt.float32}], False),
        (3, [{}, {}, {}, {"dtype": trt.bfloat16}], False),
    ],
)
def test_formats_are_linear_and_of_one_type(
    creators: dict[str, Any], position: int, kinds: list[dict[str, Any]], expected: bool
) -> None:
    """FP16, BF16 and FP32, the same for all four tensors."""
    plugin = creators["PartialGlobalAttention"].create_plugin(
        "layer", fields(**ATTRIBUTES), trt.TensorRTPhase.BUILD
    )
    descs = [dynamic_desc((-1, 8, 32), **kind) for kind in kinds]
    assert plugin.supports_format_combination(position, descs, 3) is expected


def test_kernel_is_compiled_for_the_sizes_at_hand(creators: dict[str, Any]) -> None:
    """Type and sizes come from the tensors, the batch from the profile."""
    creator = creators["PartialGlobalAttention"]
    plugin = creator.create_plugin("layer", fields(**ATTRIBUTES), trt.TensorRTPhase.BUILD)
    query, key = (
        dynamic_desc((1, 8, 32), dtype=trt.bfloat16),
        dynamic_desc((-1, 18, 32), opt=5, dtype=trt.bfloat16),
    )
    plugin.configure_plugin([query, key, key], [key])
    shape = AttentionShape("bfloat16", num_queries=8, num_keys=18, width=32, batch=5)
    assert creator.compiler.asked == [(plugin.node, shape)]


def test_engine_keeps_attributes_and_kernel(creators: dict[str, Any]) -> None:
    """What is serialized makes the same plugin where the engine runs, without a compiler."""
    creator = creators["PartialGlobalAttention"]
    plugin = creator.create_plugin("layer", fields(**ATTRIBUTES, scale=0.25), trt.TensorRTPhase.BUILD)
    key = dynamic_desc((-1, 18, 32))
    plugin.configure_plugin([dynamic_desc((1, 8, 32)), key, key], [key])
    creator.compiler = None
    collection = plugin.get_fields_to_serialize()
    gc.collect()
    [[0] * 50 for _ in range(1000)]  # writes over memory that nobody kept
    loaded = creator.create_plugin("layer", collection, trt.TensorRTPhase.RUNTIME)
    assert (loaded.node, loaded.launch) == (plugin.node, LAUNCH)


def test_plugin_without_kernel_says_so(creators: dict[str, Any]) -> None:
    """A plugin that was never configured has nothing to launch."""
    plugin = creators["PartialGlobalAttention"].create_plugin(
        "layer", fields(**ATTRIBUTES), trt.TensorRTPhase.RUNTIME
    )
    with pytest.raises(RuntimeError, match="has no kernel yet"):
        plugin.get_fields_to_serialize()


@pytest.mark.parametrize(("query_batch", "step"), [(1, 0), (3, 8 * 32)])
def test_enqueue_launches_on_the_stream(
    creators: dict[str, Any], monkeypatch: pytest.MonkeyPatch, query_batch: int, step: int
) -> None:
    """Inputs, output, step and null pointers in the kernel's order, for the batch at hand; loaded beforehand."""
    driver = FakeCudaDriver([8, 8, 8, 8, 4, 8, 8])
    monkeypatch.setattr(cubin_launcher, "_driver", lambda: driver)
    monkeypatch.setattr(cubin_launcher, "_functions", {})
    plugin = creators["PartialGlobalAttention"].create_plugin(
        "layer", fields(**ATTRIBUTES), trt.TensorRTPhase.RUNTIME
    )
    plugin.launch = LAUNCH
    plugin = plugin.attach_to_context(None)
    query, key, output = (tensor_desc(dims) for dims in ((query_batch, 8, 32), (3, 18, 32), (3, 8, 32)))
    plugin.on_shape_change([query, key, key], [output])
    assert driver.loaded == [LAUNCH.kernel.image]
    plugin.enqueue([query, key, key], [output], [256, 512, 768], [1024], 0, 42)
    assert len(driver.loaded) == 1
    launched = driver.launches[0]
    assert launched["values"] == [256, 512, 768, 1024, step, 0, 0]
    assert (launched["grid"], launched["stream"]) == ((6, 5, 1), 42)


def test_unaligned_tensor_is_refused(creators: dict[str, Any]) -> None:
    """The kernel's wide loads would fault."""
    plugin = creators["PartialGlobalAttention"].create_plugin(
        "layer", fields(**ATTRIBUTES), trt.TensorRTPhase.RUNTIME
    )
    plugin.launch = LAUNCH
    query, key = tensor_desc((1, 8, 32)), tensor_desc((1, 18, 32))
    with pytest.raises(ValueError, match=r"0x208, .*expected multiples of 16"):
        plugin.enqueue([query, key, key], [query], [0x100, 0x208, 0x300], [0x400], 0, 0)

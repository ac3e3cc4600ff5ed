"""The builder's configuration, on the real one of TensorRT for RTX."""

from __future__ import annotations

from dataclasses import replace

import pytest
from engine.rtx import Delegate

from pargo_export.bundle import BatchProfile, Bundle
from pargo_export.engine.config import create_config
from pargo_export.engine.network import parse
from pargo_export.engine.options import EngineOptions, buckets
from pargo_export.errors import EngineError
from pargo_export.trt import load_tensorrt

pytest.importorskip("tensorrt_rtx")


@pytest.fixture
def configure(engine_bundle):
    """Return a function that parses fp16 and configures its build."""
    bundle, tensorrt = Bundle.open(engine_bundle), load_tensorrt("rtx")
    variant = bundle.variant("fp16")
    network = [parse(tensorrt, variant, bundle.file(variant.graph))]

    def configure(variant=variant, *, workspace_bytes=None, detailed=False, **options):
        chosen = EngineOptions(**options)
        return create_config(
            tensorrt,
            network[0],
            variant,
            chosen,
            profiles=chosen.profiles_for(variant),
            workspace_bytes=workspace_bytes,
            detailed=detailed,
        )

    def change(builder):
        network[0] = replace(network[0], builder=builder(network[0].builder))

    configure.variant, configure.change = variant, change
    return configure


def test_every_setting_arrives(configure):
    """Level, verbosity, workspace, compute capabilities and profiles."""
    module = load_tensorrt("rtx").module
    config = configure(
        optimization_level=1,
        capabilities=("8.6", "12.0"),
        profiles=buckets((1, 4)),
        workspace_bytes=1 << 28,
        detailed=True,
    )
    assert config.builder_optimization_level == 1
    assert config.profiling_verbosity == module.ProfilingVerbosity.DETAILED
    assert config.get_memory_pool_limit(module.MemoryPoolType.WORKSPACE) == 1 << 28
    found = [config.get_compute_capability(index) for index in range(config.num_compute_capabilities)]
    assert found == [module.ComputeCapability.SM86, module.ComputeCapability.SM120]
    assert config.num_optimization_profiles == 2


def test_profiles_have_the_shapes_of_their_batches(configure):
    """Smallest, chosen and largest batch, in this order; the other axes are fixed."""
    profiles = []

    class Builder(Delegate):
        def create_optimization_profile(self):
            """Make a profile and keep it."""
            profiles.append(self.real.create_optimization_profile())
            return profiles[-1]

    configure.change(builder=Builder)
    configure(profiles=(BatchProfile(min_batch=1, opt_batch=2, max_batch=4),))
    (profile,) = profiles
    assert [shape[0] for shape in profile.get_shape("pixel_values")] == [1, 2, 4]
    assert {tuple(shape)[1:] for shape in profile.get_shape("pixel_values")} == {(3, 24, 24)}


def test_what_is_not_asked_for_stays_tensorrts(configure):
    """Level 3, names only, no list of GPUs."""
    module = load_tensorrt("rtx").module
    config = configure()
    assert config.builder_optimization_level == 3
    assert config.profiling_verbosity == module.ProfilingVerbosity.LAYER_NAMES_ONLY
    assert config.num_compute_capabilities == 0
    assert config.num_optimization_profiles == 1


@pytest.mark.parametrize("capability", ["8.7", "9.0", "11.0"])
def test_gpus_that_rtx_does_not_serve_are_refused(configure, capability):
    """With those that it offers."""
    with pytest.raises(
        EngineError, match=rf"{capability}; it offers 7\.5, .*8\.6, .*12\.0.*--flavor tensorrt"
    ):
        configure(capabilities=("8.6", capability))


def test_a_network_must_have_the_signature_of_the_manifest(configure):
    """A graph that is another one than the manifest describes is not built."""
    variant = configure.variant
    inputs = (variant.signature.inputs[0].model_copy(update={"name": "image"}),)
    other = variant.model_copy(update={"signature": variant.signature.model_copy(update={"inputs": inputs})})
    with pytest.raises(EngineError, match=r"inputs and outputs pixel_values, visual_tokens.*expected image"):
        configure(other)

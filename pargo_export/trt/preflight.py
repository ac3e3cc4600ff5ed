"""Decide, before it is deserialized, whether an engine may be loaded on this machine.

An engine is code for one kind of GPU and one version of TensorRT. Loaded elsewhere it fails late and unclearly, or
computes something else; so everything that the record says is compared first, and the reason names the mend.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from pargo_export.bundle import Engine, EngineDevice, Manifest
from pargo_export.device.gpu import MIN_CAPABILITY
from pargo_export.trt.compatibility import rtx_serves, runs_on_capability, runs_on_version, version_parts
from pargo_export.trt.module import TITLES, TensorRT
from pargo_export.trt.plugins_load import find_plugin_refusal
from pargo_export.trt.rebuild import rebuild_command

__all__ = ["Mismatch", "find_mismatches", "find_refusal", "is_stale"]


@dataclass(frozen=True)
class Mismatch:
    """One thing that forbids loading an engine.

    Attributes:
        field: What differs: `flavor`, `tensorrt_version`, `platform`, `device`, `compute_capability`, `l4t`,
            `precision`, `variant`, `graph`, `plugins`, `built_as_asked`, `evidence`.
        reason: What was found and what was expected.
        mend: What to do where building it again on this machine is not it; empty where it is.
    """

    field: str
    reason: str
    mend: str = ""


def find_refusal(
    engine: Engine,
    manifest: Manifest,
    *,
    device: EngineDevice,
    tensorrt: TensorRT,
    bundle: str | os.PathLike[str] = "BUNDLE",
    accept_failed: bool = False,
) -> str | None:
    """Return why the engine must not be loaded here, every reason with its mend; `None` if it may be.

    Nothing is read from the engine's file: its hash is compared by `Bundle.check`, before it is deserialized.

    Args:
        engine: The engine.
        manifest: The bundle that it is in.
        device: This machine (`device.find.find_engine_device`).
        tensorrt: The TensorRT that would load it.
        bundle: Directory of the bundle, for the command that builds the engine again.
        accept_failed: Take an engine whose evidence failed: the user named it.
    """
    found = find_mismatches(engine, manifest, device=device, tensorrt=tensorrt)
    if accept_failed:
        found = tuple(item for item in found if item.field not in {"evidence", "built_as_asked"})
    if not found:
        return None
    mends = [item.mend for item in found if item.mend]
    variant = manifest.variants.get(engine.variant)
    can_compute = device.compute_capability and not any(item.field == "precision" for item in found)
    if len(mends) < len(found) and variant is not None and can_compute:
        command = rebuild_command(engine, variant, device, bundle)
        mends.append(f"build it again on this machine: {command}")
    reasons = "; ".join(item.reason for item in found)
    return f"engine {engine.name}: {reasons}; {'; '.join(dict.fromkeys(mends))}"


def find_mismatches(
    engine: Engine, manifest: Manifest, *, device: EngineDevice, tensorrt: TensorRT
) -> tuple[Mismatch, ...]:
    """Return everything that forbids loading the engine here; arguments as for `find_refusal`."""
    return (
        *_compare_tensorrt(engine, tensorrt),
        *_compare_machine(engine, device, tensorrt),
        *_compare_formats(engine, manifest, device),
        *_compare_bundle(engine, manifest),
        *_find_missing_plugins(engine, manifest),
        *_judge(engine),
    )


def is_stale(engine: Engine, manifest: Manifest) -> bool:
    """Whether the graph of the variant is another one than the engine was built from."""
    variant = manifest.variants.get(engine.variant)
    return variant is None or manifest.graph_sha256(variant.graph) != engine.graph_sha256


def _compare_tensorrt(engine: Engine, tensorrt: TensorRT) -> Iterator[Mismatch]:
    built_by = f"{TITLES[engine.flavor]} {engine.tensorrt_version}"
    if tensorrt.flavor != engine.flavor:
        mend = f"open it with the backend for {TITLES[engine.flavor]}"
        yield Mismatch("flavor", f"it was built by {built_by}, not by {TITLES[tensorrt.flavor]}", mend)
    elif not runs_on_version(engine, tensorrt.version):
        yield Mismatch("tensorrt_version", f"it was built by {built_by}, found {tensorrt.title}")


def _compare_machine(engine: Engine, device: EngineDevice, tensorrt: TensorRT) -> Iterator[Mismatch]:
    built_on = engine.device
    # The engines of RTX are the same on Linux and Windows.
    if engine.flavor == "tensorrt" and device.platform != built_on.platform:
        yield Mismatch("platform", f"it was built on {built_on.platform}, this machine is {device.platform}")
    if not device.compute_capability:
        yield Mismatch(
            "device", "this machine has no usable GPU", "open it where there is one, see nvidia-smi"
        )
        return
    if tensorrt.flavor == engine.flavor:
        yield from _compare_capability(engine, device, tensorrt)
    if engine.flavor == "tensorrt":
        yield from _compare_jetson(built_on, device)


def _compare_capability(engine: Engine, device: EngineDevice, tensorrt: TensorRT) -> Iterator[Mismatch]:
    capability = device.compute_capability
    if runs_on_capability(engine, capability, tensorrt.module):
        return
    built_for = ", ".join(engine.compute_capabilities) or "8.0 and later"
    reason = f"it was built for compute capability {built_for}, {device.name or 'this GPU'} has {capability}"
    if engine.flavor == "rtx" and not rtx_serves(capability, tensorrt.module):
        mend = f"{tensorrt.title} does not serve this GPU: build an engine with TensorRT (--flavor tensorrt)"
        yield Mismatch("compute_capability", reason, mend)
    else:
        yield Mismatch("compute_capability", reason)


def _compare_formats(engine: Engine, manifest: Manifest, device: EngineDevice) -> Iterator[Mismatch]:
    """Look for number formats that the GPU lacks: an engine for RTX is built for GPUs with and without FP8 alike."""
    variant = manifest.variants.get(engine.variant)
    if variant is None or not device.compute_capability:
        return
    capability = version_parts(device.compute_capability)
    for name in dict.fromkeys((variant.precision, variant.float_precision)):
        lowest = MIN_CAPABILITY.get(name, (0, 0))
        if capability < lowest:
            least = ".".join(map(str, lowest))
            gpu = f"{device.name or 'this GPU'} has {device.compute_capability}"
            mend = f"build an engine of a variant without {name}"
            yield Mismatch("precision", f"{name} needs compute capability {least}, {gpu}", mend)


def _compare_jetson(built_on: EngineDevice, device: EngineDevice) -> Iterator[Mismatch]:
    """Compare the releases of Jetson Linux, to the minor number: `36.4.3` and `36.4.7` go together."""
    if built_on.is_jetson != device.is_jetson:
        where, here = (_jetson(item) for item in (built_on, device))
        yield Mismatch("l4t", f"it was built on {where}, this machine is {here}")
    elif built_on.l4t and device.l4t and built_on.l4t.split(".")[:2] != device.l4t.split(".")[:2]:
        yield Mismatch("l4t", f"it was built on {_jetson(built_on)}, found {_jetson(device)}")


def _jetson(device: EngineDevice) -> str:
    if not device.is_jetson:
        return "no Jetson"
    release = f"Jetson Linux {device.l4t}" if device.l4t else "a Jetson"
    return f"{release} (JetPack {device.jetpack})" if device.jetpack else release


def _compare_bundle(engine: Engine, manifest: Manifest) -> Iterator[Mismatch]:
    if engine.variant not in manifest.variants:
        mend = "build an engine of another variant with `pargo-export trt`"
        yield Mismatch("variant", f"its variant {engine.variant!r} is not in the bundle any more", mend)
    elif is_stale(engine, manifest):
        yield Mismatch("graph", f"the graph of variant {engine.variant!r} has changed since it was built")


def _find_missing_plugins(engine: Engine, manifest: Manifest) -> Iterator[Mismatch]:
    reason = find_plugin_refusal(engine.plugins, manifest)
    if reason is not None:
        packages = [item.package for item in engine.plugins if item.package]
        mend = f"install {', '.join(packages)}" if packages else "copy the bundle again"
        yield Mismatch("plugins", reason, f"{mend}, as it was when the engine was built")


def _judge(engine: Engine) -> Iterator[Mismatch]:
    if not engine.built_as_asked.passed:
        found = engine.built_as_asked
        reason = f"{found.share:.0%} of its linears are {found.asked}, less than {found.limit:.0%}"
        yield Mismatch("built_as_asked", reason, f"name {engine.name} to run it nevertheless")
    if engine.evidence is not None and not engine.evidence.passed:
        reason = "its agreement with the float32 variant failed"
        yield Mismatch("evidence", reason, f"name {engine.name} to run it nevertheless")

"""The same build in the words of NVIDIA's command lines, `trtexec` and `tensorrt_rtx`.

Options were checked against `trtexec --help` as written in NVIDIA/TensorRT, samples/common/sampleOptions.cpp
(8.6 and the 11.x main branch), and for TensorRT for RTX against the pages "CPU-only AOT", "Performance Benchmarking" and
"Optimizing TensorRT-RTX Performance" of its documentation. No command was run: neither program is in a Python package.

- `--stronglyTyped` is needed by 10.x and a no-op in 11.x.
- `--memPoolSize=workspace:N` counts in MiB.
- `--profile=I` in front of its shapes; one profile needs none.
- `--computeCapabilities=86,89` exists for RTX alone.

Engine and timing cache are written to the working directory: the bundle's own are guarded by hashes.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from pargo_export.bundle import BatchProfile, Engine, Flavor, Variant
from pargo_export.engine.options import EngineOptions

__all__ = ["trtexec_command"]

_PROGRAMS: dict[Flavor, str] = {"tensorrt": "trtexec", "rtx": "tensorrt_rtx"}
_MIB = 1 << 20
# From here on the parser takes the body of a function although there is a plugin, unless it is told.
_OVERRIDE_SINCE = (10, 15)


def trtexec_command(
    built: Engine | EngineOptions,
    variant: Variant,
    bundle: Path,
    *,
    flavor: Flavor = "tensorrt",
    version: str = "",
) -> str:
    """Return the command that builds the same engine, behind comments on what it cannot say.

    Args:
        built: An engine of the bundle, or the options of a build.
        variant: The variant.
        bundle: The bundle's directory.
        flavor: Which program, if `built` is options that leave it open.
        version: Version of TensorRT, if `built` is options; empty: not known.

    Raises:
        ConfigError: The options have batches that the variant was not made for.
    """
    if isinstance(built, Engine):
        flavor, version, profiles = built.flavor, built.tensorrt_version, built.profiles
        capabilities, settings, name = built.compute_capabilities, built.settings, built.name
        libraries = tuple(bundle / item.file for item in built.plugins if item.file is not None)
        packages = tuple(item.package for item in built.plugins if item.kind == "python")
    else:
        flavor = flavor if built.flavor == "auto" else built.flavor
        profiles, capabilities, settings = built.profiles_for(variant), built.capabilities, built.settings()
        name = built.engine_name(variant.name, flavor, "") if flavor == "rtx" else built.name or variant.name
        libraries, packages = built.plugin_libraries, ()
    comments = [f"trtexec cannot load the plugins of {package}: they are Python" for package in packages]
    words = [_PROGRAMS[flavor], f"--onnx={bundle / variant.graph}", f"--saveEngine={name}.engine"]
    words += _shapes(variant, profiles)
    if flavor == "rtx":
        if capabilities:
            words.append(f"--computeCapabilities={','.join(item.replace('.', '') for item in capabilities)}")
        if libraries:
            comments.append("how tensorrt_rtx loads plugin libraries is not documented: " + _join(libraries))
    else:
        words += _tensorrt_options(settings, name, libraries, version)
    if settings.get("profiling"):
        words.append("--profilingVerbosity=detailed")
    words.append("--skipInference")
    if isinstance(built, Engine) and built.attention != variant.attention:
        comments.append(
            "the parser refused the graph's functions; the engine was built with them written out"
        )
    return "\n".join([*(f"# {comment}" for comment in comments), shlex.join(words)])


def _tensorrt_options(
    settings: dict[str, str | int | float | bool], name: str, libraries: tuple[Path, ...], version: str
) -> list[str]:
    words = ["--stronglyTyped"]
    if (workspace := settings.get("workspace_bytes")) is not None:
        words.append(f"--memPoolSize=workspace:{round(float(workspace) / _MIB)}")
    if (level := settings.get("optimization_level")) is not None:
        words.append(f"--builderOptimizationLevel={level}")
    if settings.get("timing_cache"):
        words.append(f"--timingCacheFile={name}.timing.cache")
    words += [f"--staticPlugins={library}" for library in libraries]
    if libraries and version and tuple(map(int, version.split(".")[:2])) >= _OVERRIDE_SINCE:
        words.append("--enablePluginOverride")
    return words


def _shapes(variant: Variant, profiles: tuple[BatchProfile, ...]) -> list[str]:
    """Return the shape options of every profile; none for a graph without a dynamic axis."""
    inputs = [spec for spec in variant.signature.inputs if any(isinstance(size, str) for size in spec.shape)]
    if not inputs:
        return []
    words = []
    for index, profile in enumerate(profiles):
        if len(profiles) > 1:
            words.append(f"--profile={index}")
        batches = {"min": profile.min_batch, "opt": profile.opt_batch, "max": profile.max_batch}
        for kind, batch in batches.items():
            shapes = (
                f"{spec.name}:{'x'.join(str(batch if isinstance(size, str) else size) for size in spec.shape)}"
                for spec in inputs
            )
            words.append(f"--{kind}Shapes={','.join(shapes)}")
    return words


def _join(paths: tuple[Path, ...]) -> str:
    return ", ".join(map(str, paths))

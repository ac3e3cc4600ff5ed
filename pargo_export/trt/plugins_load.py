"""Plugins of a finished engine: are they here, are they the ones it was built with, and register them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pargo_export.bundle import Bundle, Manifest, PluginRequirement
from pargo_export.errors import BackendError, BundleError, EngineError
from pargo_export.trt.module import TensorRT
from pargo_export.trt.plugins_library import PluginLibrary, load_library
from pargo_export.trt.plugins_package import PACKAGE, keep_creators, package_sha256

if TYPE_CHECKING:
    from tensorrt import IPluginCreatorV3One

__all__ = ["LoadedPlugins", "find_plugin_refusal", "load_requirements"]


@dataclass(frozen=True)
class LoadedPlugins:
    """What an engine's plugins need alive: keep it until the engine is gone.

    Attributes:
        libraries: Shared libraries that were loaded from the bundle.
        creators: Creators of the Python package.
    """

    libraries: tuple[PluginLibrary, ...] = ()
    creators: tuple[IPluginCreatorV3One, ...] = ()


def find_plugin_refusal(requirements: Sequence[PluginRequirement], manifest: Manifest) -> str | None:
    """Return why an engine's plugins are not here, without the mend; `None` if they are. Loads and hashes no library.

    Args:
        requirements: Those of the engine.
        manifest: The bundle's, which lists the libraries that it carries.
    """
    for requirement in requirements:
        operators = ", ".join(requirement.operators)
        if requirement.kind == "library":
            record = manifest.files.get(requirement.file or "")
            if record is None:
                return f"its plugin library {requirement.file} for {operators} is not in the bundle"
            if record.sha256 != requirement.sha256:
                return (
                    f"its plugin library {requirement.file} for {operators} has sha256 {record.sha256} in the bundle, "
                    f"expected {requirement.sha256}"
                )
        else:
            reason = _package_refusal(requirement)
            if reason is not None:
                return f"it needs the plugins for {operators} of {requirement.package}, but {reason}"
    return None


def load_requirements(
    tensorrt: TensorRT, requirements: Sequence[PluginRequirement], bundle: Bundle
) -> LoadedPlugins:
    """Register the plugins that an engine needs, before it is deserialized.

    Everything is checked before anything is loaded: a library is code, and its hash is compared with the manifest and
    with what the engine recorded.

    Args:
        tensorrt: Whose registry.
        requirements: Those of the engine.
        bundle: Where the libraries lie.

    Returns:
        What has to be kept for as long as the engine lives.

    Raises:
        BackendError: A library or the package is missing, is not the one that the engine was built with, or cannot be
            registered.
    """
    refusal = find_plugin_refusal(requirements, bundle.manifest)
    if refusal is not None:
        raise _refused(refusal, bundle)
    files = [(item, item.file) for item in requirements if item.file is not None]
    try:
        paths = [(item, bundle.check(file)) for item, file in files]
        libraries = tuple(load_library(tensorrt, path, expected_sha256=item.sha256) for item, path in paths)
        has_package = any(item.kind == "python" for item in requirements)
        creators = tuple(keep_creators(tensorrt)) if has_package else ()
    except (BundleError, EngineError) as error:
        raise _refused(f"its plugins cannot be loaded: {error}", bundle) from error
    return LoadedPlugins(libraries, creators)


def _package_refusal(requirement: PluginRequirement) -> str | None:
    try:
        found = package_sha256()
    except EngineError as error:
        return str(error)
    if found == requirement.sha256:
        return None
    if requirement.package != PACKAGE:
        return f"{PACKAGE} is installed"
    return (
        f"the sources installed under that version are others (sha256 {found}, expected {requirement.sha256})"
    )


def _refused(reason: str, bundle: Bundle) -> BackendError:
    return BackendError(
        f"an engine of bundle {bundle.path} is not loaded: {reason}. Restore what it was built with, or build it again "
        f"on this machine: pargo-export trt {bundle.path} --force"
    )

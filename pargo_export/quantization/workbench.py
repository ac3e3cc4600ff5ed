"""Everything that quantizing and analysing a bundle have in common, found and checked before any work."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import onnx_ir as ir

from pargo_calibration import QuantRecipe
from pargo_export.bundle import Bundle, Calibration, Variant
from pargo_export.errors import CalibrationError, QuantizationError
from pargo_export.quantization.base import find_base, find_reference, require_match
from pargo_export.quantization.build import GraphBuilder
from pargo_export.quantization.linears import find_linears
from pargo_export.quantization.measure import Reference, load_evaluation
from pargo_export.quantization.options import QuantizeOptions
from pargo_export.quantization.statistics import unpack

__all__ = ["Workbench"]

_PATCHES = "tower.patch_embedding"


@dataclass(frozen=True)
class Workbench:
    """What a quantized graph is made from and held against.

    Attributes:
        bundle: The bundle.
        options: What kind of graph.
        recipe: The policy; `None` if only the float precision changes.
        base: Float variant to start from.
        reference_variant: Float32 variant that it is held against.
        calibration: Has the statistics and the evaluation images.
    """

    bundle: Bundle
    options: QuantizeOptions
    recipe: QuantRecipe | None
    base: Variant
    reference_variant: Variant
    calibration: Calibration

    @classmethod
    def of(cls, bundle: Bundle, options: QuantizeOptions) -> Workbench:
        """Find what the options name.

        Raises:
            BundleError: There is no such variant.
            CalibrationError: The calibration is missing or for another graph.
            QuantizationError: No variant fits, or there is no such recipe.
        """
        recipe = options.load_recipe()
        base = find_base(
            bundle,
            options.base,
            target=options.target,
            float_precision=options.resolved_float_precision,
            convert=not options.quantizes,
        )
        calibration = _find_calibration(bundle, options.calibration, base)
        _require_smoothing(recipe, calibration)
        reference = find_reference(bundle, base)
        if options.variant_name in {base.name, reference.name, calibration.variant}:
            raise QuantizationError(
                f"variant {options.variant_name!r} is what the new one is made from or held against; choose another "
                "name (--name)"
            )
        return cls(bundle, options, recipe, base, reference, calibration)

    @property
    def needs_ranges(self) -> bool:
        """Whether activations are quantized, so that the statistics decide the graph."""
        return self.recipe is not None and self.recipe.precision != "int8_weight_only"

    def builder(self) -> GraphBuilder:
        """Return what makes the graph; reads the statistics.

        Raises:
            CalibrationError: The statistics are damaged.
            IntegrityError: A file is not the one that the manifest describes.
        """
        for file in self.bundle.manifest.files_of(self.base.graph):
            self.bundle.check(file)
        return GraphBuilder(
            base=self.bundle.file(self.base.graph),
            recipe=self.recipe,
            observation=unpack(self.bundle.check(self.calibration.statistics)) if self.needs_ranges else None,
            dialect=self.options.dialect,
            float_precision=self.options.resolved_float_precision,
            metadata=_graph_metadata(self.options, self.recipe, self.options.resolved_float_precision),
        )

    def reference(self) -> Reference:
        """Run the float32 graph on the evaluation images."""
        images = load_evaluation(self.bundle, self.calibration)
        return Reference.of(self.bundle, self.reference_variant, images, threads=self.options.threads)

    def keep(self) -> dict[str, str]:
        """Return the linears that the options keep in float, with the reason.

        Raises:
            QuantizationError: A pattern matches nothing.
        """
        kept = _match_keep(self.bundle.file(self.base.graph), self.options.keep)
        if self.base.input != self.calibration.input:
            kept |= {
                _PATCHES: f"it reads {self.base.input} pixels, calibration saw {self.calibration.input} ones"
            }
        return kept


def _require_smoothing(recipe: QuantRecipe | None, calibration: Calibration) -> None:
    """See that the ranges of the smoothed activations were observed.

    Raises:
        CalibrationError: Another exponent was.
    """
    wanted = recipe.smooth.alpha if recipe else 0.0
    if wanted and wanted != calibration.smoothing:
        raise CalibrationError(
            f"calibration {calibration.name!r} observed smoothing {calibration.smoothing}, the recipe wants {wanted}; "
            f"calibrate again (--smoothing {wanted} --name ...), or choose a recipe without smoothing (int8-no-smooth)"
        )


def _find_calibration(bundle: Bundle, name: str, base: Variant) -> Calibration:
    found = bundle.manifest.calibrations.get(name)
    if found is None:
        known = ", ".join(sorted(bundle.manifest.calibrations)) or "none"
        raise CalibrationError(
            f"the bundle has no calibration {name!r} (it has: {known}); make one first: "
            "pargo-export calibrate BUNDLE --data PHOTOS"
        )
    require_match(found, base, bundle)
    return found


def _match_keep(graph: Path, patterns: tuple[str, ...]) -> dict[str, str]:
    """Return the linears that match, with the reason.

    Raises:
        QuantizationError: A pattern matches nothing.
    """
    paths = [linear.path for linear in find_linears(ir.load(graph))]
    unknown = [pattern for pattern in patterns if not any(fnmatchcase(path, pattern) for path in paths)]
    if unknown:
        raise QuantizationError(
            f"keep names {', '.join(unknown)}, which the graph does not have; it has {', '.join(paths[:6])}, ..."
        )
    return {
        path: f"kept by {pattern!r}" for pattern in patterns for path in paths if fnmatchcase(path, pattern)
    }


def _graph_metadata(
    options: QuantizeOptions, recipe: QuantRecipe | None, float_precision: str
) -> dict[str, str]:
    values = {
        "pargo.precision": options.precision,
        "pargo.target": options.target,
        "pargo.float_precision": float_precision,
    }
    if recipe is not None:
        values |= {"pargo.dialect": options.dialect, "pargo.recipe": recipe.to_json()}
    return values

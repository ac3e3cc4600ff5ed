"""The steps that make graphs: export, calibrate, quantize."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pargo_export.bundle import Bundle
from pargo_export.deploy.options import DeployOptions
from pargo_export.deploy.plan import Plan
from pargo_export.deploy.steps import CalibrateStep, ExportStep, QuantizeStep
from pargo_export.errors import BundleError
from pargo_export.graph.check import summarize_evidence
from pargo_export.preprocessing import PictureDefaults, PreprocessSpec

if TYPE_CHECKING:
    from pargo_export.checkpoint.reader import VisionSource
    from pargo_export.model.frontend import VisualFrontEnd

__all__ = ["GraphMaker"]


class GraphMaker:
    """Makes the graphs of one plan; the checkpoint is read once, when it is first needed.

    Args:
        plan: What is to be made.
        options: What was asked for.
        force: Do again what is up to date, and replace what has the same name.
        progress: Called with a short text at the start of each step.
        advance: Called with what is done and what there is in all, during calibration.
    """

    def __init__(
        self,
        plan: Plan,
        options: DeployOptions,
        *,
        force: bool,
        progress: Callable[[str], None],
        advance: Callable[[int, int], None],
    ) -> None:
        self._plan, self._options, self._force = plan, options, force
        self._progress, self._advance = progress, advance
        self._model: VisualFrontEnd | None = None
        self._is_same = not plan.from_checkpoint or not Bundle.exists(plan.bundle)

    def make(self, step: ExportStep | CalibrateStep | QuantizeStep) -> tuple[str, bool]:
        """Do a step; return what was made, and whether it was there already.

        Raises:
            PargoExportError: As `export_onnx`, `calibrate` and `quantize`.
        """
        if isinstance(step, ExportStep):
            return self._export(step)
        self.require_same_model()
        return self._calibrate(step) if isinstance(step, CalibrateStep) else self._quantize(step)

    def require_same_model(self) -> None:
        """See that the checkpoint is the one that an existing bundle was made from, where nothing else compares.

        Raises:
            BundleError: It is another one.
        """
        if self._is_same:
            return
        from pargo_export.graph.provenance import weights_sha256

        manifest, model = Bundle.open(self._plan.bundle).manifest, self._load()
        self._progress("hashing weights")
        differing = [
            name
            for name, same in (
                ("weights", manifest.source.sha256 == weights_sha256(model)),
                ("architecture or tiles", manifest.model == model.config),
                ("preprocessing", self._prepares_like(manifest.preprocessing)),
            )
            if not same
        ]
        if differing:
            raise BundleError(
                f"bundle {self._plan.bundle} holds a model with other {', '.join(differing)} than {self._plan.source}; write "
                "to another directory (-o), or replace the whole bundle: pargo-export onnx CHECKPOINT -o "
                f"{self._plan.bundle} --force"
            )
        self._is_same = True

    def _prepares_like(self, found: PreprocessSpec) -> bool:
        """Whether pictures would be prepared as the bundle has it; its input size is the architecture's matter."""
        pictures = self._load().pictures or PictureDefaults()
        return pictures.spec(self._options.checkpoint.preprocess, (found.height, found.width)) == found

    def _load(self) -> VisualFrontEnd:
        if self._model is None:
            from pargo_export.model.loading import load_checkpoint

            chosen = self._options.checkpoint
            self._progress("loading the checkpoint")
            vision: VisionSource | None = chosen.vision_checkpoint
            if chosen.vision_model is not None:
                from pargo_export.checkpoint.vision_model import open_vision_model

                vision = open_vision_model(chosen.vision_model, chosen.vision_layer)
            self._model = load_checkpoint(self._plan.source, chosen.config, vision)
            if chosen.tiles is not None:
                self._model.config = self._model.config.with_tiles(*chosen.tiles)
        return self._model

    def _export(self, step: ExportStep) -> tuple[str, bool]:
        from pargo_export.graph.export import export_onnx
        from pargo_export.graph.options import ExportOptions

        options = ExportOptions(
            precision=step.precision,
            target=step.target,
            max_batch=step.max_batch,
            preprocess=self._options.checkpoint.preprocess,
            name=step.name,
        )
        # Not `force`: that would replace a bundle of another model, which nobody asked for here.
        result = export_onnx(self._load(), self._plan.bundle, options, progress=self._progress)
        self._is_same = True
        evidence = result.variant.evidence
        return summarize_evidence(evidence) if evidence else "not measured", result.reused

    def _calibrate(self, step: CalibrateStep) -> tuple[str, bool]:
        from pargo_export.quantization.calibrate import CalibrateOptions, calibrate

        options = CalibrateOptions(
            name=step.name, allow_random=self._options.allow_random, threads=self._options.threads
        )
        found = calibrate(
            self._plan.bundle, step.data, options, progress=self._progress, advance=self._advance
        ).calibration
        return f"{found.num_images} images observed, {found.num_evaluation} kept for evaluation", False

    def _quantize(self, step: QuantizeStep) -> tuple[str, bool]:
        from pargo_export.quantization.options import QuantizeOptions
        from pargo_export.quantization.quantize import quantize

        options = QuantizeOptions(
            precision=step.precision,
            target=step.target,
            base=step.base,
            calibration=step.calibration,
            allow_below=self._options.allow_below,
            name=step.name,
            threads=self._options.threads,
        )
        result = quantize(
            self._plan.bundle, options, force=self._force, progress=self._progress, advance=self._advance
        )
        evidence = result.variant.evidence
        return summarize_evidence(evidence) if evidence else "not measured", result.reused

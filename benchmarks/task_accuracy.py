"""What export and quantization cost on a task: every variant of the trained sample answers the same questions.

    python benchmarks/task_accuracy.py --output DIR --out result.json [--images-per-task 60 --beams 4]

Writes `DIR/data` (the synthetic MME-form test set and the calibration images of examples/train_sample, whose photographs
and layouts training did not see), `DIR/bundle` with every variant of `QUANTIZED` and `EXPORTED`, the answers, and the
evaluation as `pargo-export eval mme` records it. The baseline is the reference in PyTorch, float32.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from pargo_export import Bundle, QuantizeOptions, calibrate, export_onnx, load_checkpoint, quantize
from pargo_export.assets import TRAINED_SAMPLE
from pargo_export.evaluation.language_model import describe_chat
from pargo_export.evaluation.mme import read_mme
from pargo_export.evaluation.mme.evaluate import MmeOptions, evaluate_mme
from pargo_export.evaluation.mme.records import MmeEvaluation
from pargo_export.evaluation.mme.result_file import write_evaluation
from pargo_export.llm import Chat, GenerationSettings, open_language_model

DATA_SCRIPT = Path(__file__).resolve().parent.parent / "examples" / "train_sample" / "make_data.py"
EXPORTED = (("fp32", "cpu"), ("fp16", "cuda"), ("bf16", "cuda"))
QUANTIZED = (
    ("int8", "cpu"),
    ("int8-weight-only", "cpu"),
    ("int8", "cuda"),  # symmetric activations, as TensorRT takes them
    ("fp8", "cuda"),
)
# ONNX Runtime runs what it can; nothing here multiplies in FP8 or BF16, so that these are emulated.
BACKENDS = {"bf16": "emulated", "fp8-cuda": "emulated"}
ALSO = ("int8-cpu@openvino",)


def make_bundle(directory: Path, checkpoint: Path, calibration: Path, *, threads: int) -> tuple[str, ...]:
    """Export and quantize every variant; return what is to be evaluated."""
    model, names = load_checkpoint(checkpoint), []
    for precision, target in EXPORTED:
        names.append(
            export_onnx(model, directory, precision=precision, target=target, max_batch=8).variant.name
        )
    calibrate(directory, calibration)
    for precision, target in QUANTIZED:
        # What misses the limits of the visual tokens is evaluated all the same: the task is what this is about.
        options = QuantizeOptions(precision=precision, target=target, allow_below=True, threads=threads)
        names.append(quantize(directory, options).variant.name)
    return (*(f"{name}@{BACKENDS.get(name, 'onnxruntime')}" for name in names), *ALSO)


def evaluate(
    bundle: Path,
    variants: tuple[str, ...],
    data: Path,
    results: Path,
    *,
    checkpoint: Path,
    llm: Path,
    beams: int,
    threads: int,
) -> MmeEvaluation:
    """Answer all questions with every variant and with PyTorch, and compare."""
    with open_language_model(llm) as language_model:
        chat = Chat(None, language_model, settings=GenerationSettings(num_beams=beams))
        return evaluate_mme(
            Bundle.open(bundle),
            chat,
            read_mme(data),
            results,
            MmeOptions(
                variants=variants, checkpoint=checkpoint, num_token_images=64, threads=threads, force=True
            ),
            language_model=describe_chat(chat, llm),
            command=" ".join(["python", *sys.argv]),
            progress=lambda text: print(text, file=sys.stderr),
        )


def main() -> None:
    """Make the data and the variants, evaluate, write the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--output", type=Path, required=True, help="Folder for data, bundle and answers.")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the result.")
    parser.add_argument("--images-per-task", type=int, default=60)
    parser.add_argument("--beams", type=int, default=4)
    parser.add_argument(
        "--threads", type=int, default=1, help="CPU threads; this model has no work for more."
    )
    options = parser.parse_args()
    data = options.output / "data"
    command = [sys.executable, str(DATA_SCRIPT), str(data), "--images-per-task", str(options.images_per_task)]
    subprocess.run(command, check=True)
    bundle, checkpoint = options.output / "bundle", TRAINED_SAMPLE / "model.safetensors"
    variants = make_bundle(bundle, checkpoint, data / "calibration", threads=options.threads)
    found = evaluate(
        bundle,
        variants,
        data / "mme",
        options.output / "answers",
        checkpoint=checkpoint,
        llm=TRAINED_SAMPLE / "llm",
        beams=options.beams,
        threads=options.threads,
    )
    write_evaluation(found, options.out)


if __name__ == "__main__":
    main()

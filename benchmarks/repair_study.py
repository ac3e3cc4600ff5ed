"""Is a recipe that was made bad on purpose repaired by `--budget mme-drop=X`, and which blocks does that keep in float?

The default recipe is made worse step by step (ranges that clip more and more of the calibration values, everywhere)
until the MME total falls by at least --clear-drop percent. With that recipe, `quantize` searches for the fewest blocks in
float with which the drop is at most --budget percent. The search sees the first half of the images of every task; all
graphs are scored on the second half too, which decided nothing. Answers are greedy, totals are over every task in the data.

The bundle is only read; it needs a float32 variant and a calibration, on other images than --data.

    python benchmarks/repair_study.py BUNDLE --data MME_DIR --llm LLM_DIR --out result.json
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from common import describe_environment, markdown_table, write_json

from pargo_calibration import QuantRecipe, load_recipe
from pargo_export import Bundle, quantize
from pargo_export.bundle import TaskEvidence
from pargo_export.evaluation.mme.data import MmeData, read_mme
from pargo_export.evaluation.task_budget import MmeDrop, open_mme_drop
from pargo_export.quantization.budget import Budget
from pargo_export.quantization.options import QuantizeOptions
from pargo_export.quantization.task import TaskBaseline

PACKAGES = ("onnxruntime", "onnx", "torch", "transformers", "numpy")
# Percentage of the calibration values that a range keeps; what lies beyond is clipped.
PERCENTILES = (99.9, 99.0, 98.0, 95.0, 90.0, 80.0, 70.0)
Half = Literal["search", "held out"]


@dataclass(frozen=True)
class Judge:
    """Scores variants of a bundle on both halves of the data.

    Attributes:
        bundle: The bundle.
        baselines: Of each half the task with the score of the float32 graph.
        limit_percent: For the evidence.
    """

    bundle: Path
    baselines: dict[Half, TaskBaseline]
    limit_percent: float

    def score(self, variant: str) -> dict[Half, TaskEvidence]:
        """Hold a variant against the float32 graph."""
        bundle = Bundle.open(self.bundle)
        graph = bundle.check(bundle.variant(variant).graph)
        return {
            half: baseline.measure(graph, limit_percent=self.limit_percent)
            for half, baseline in self.baselines.items()
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder in the layout of MME")
    parser.add_argument("--llm", type=Path, required=True, help="directory of the language model")
    parser.add_argument("--out", type=Path, required=True, help="result, JSON")
    parser.add_argument("--budget", type=float, default=1.0, help="largest drop in percent, default 1")
    parser.add_argument(
        "--clear-drop", type=float, default=5.0, help="drop that makes a recipe bad, default 5"
    )
    parser.add_argument("--limit", type=int, help="images of each task at most")
    parser.add_argument("--threads", type=int, help="CPU threads")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="repair-study-") as folder:
        work = Path(shutil.copytree(options.bundle, Path(folder) / "bundle"))
        result = run(work, options)
    write_json(options.out, result)
    print(summarize(result))
    return 0


def run(bundle: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Find a bad recipe, repair it, and return everything measured; the bundle is changed."""
    started = time.monotonic()
    whole = read_mme(options.data, limit=options.limit)
    halves: dict[Half, MmeData] = {
        "search": part_of(whole, first=True),
        "held out": part_of(whole, first=False),
    }
    tasks = {half: open_task(data, options) for half, data in halves.items()}
    judge = Judge(bundle, score_baselines(bundle, tasks, options.threads), options.budget)
    base = QuantizeOptions(precision="int8", threads=options.threads, allow_below=True)

    say("default recipe")
    quantize(bundle, base, name="default")
    default = judge.score("default")
    tried = []
    for percentile in PERCENTILES:
        recipe = clipping(percentile)
        name = f"bad-{len(tried)}"
        quantize(bundle, base, recipe=recipe, name=name)
        found = judge.score(name)
        tried.append({"percentile": percentile, "recipe": recipe.name, "scores": dump(found)})
        say(f"{recipe.name}: drop {found['search'].drop_percent:.2f} %")
        if found["search"].drop_percent >= options.clear_drop:
            break
    else:
        sys.exit(f"no recipe drops the total by {options.clear_drop} %; lower --clear-drop")

    say("searching")
    budget = Budget("mme-drop", options.budget)
    before = time.monotonic()
    repaired = quantize(
        bundle, base, recipe=recipe, name="repaired", budget=budget, task=tasks["search"], progress=say
    )
    seconds = time.monotonic() - before
    final = judge.score("repaired")
    holding = min((step for step in repaired.steps if step.holds), key=lambda step: step.num_kept)
    for task in tasks.values():
        task.close()
    record = repaired.variant.quantization
    return {
        "study": "repair",
        "environment": describe_environment(PACKAGES),
        "seconds": round(time.monotonic() - started, 1),
        "weights_sha256": Bundle.open(bundle).manifest.source.sha256,
        "data": {
            "sha256": whole.sha256,
            "images": whole.num_images,
            "tasks": list(whole.tasks),
            "halves": {half: data.num_images for half, data in halves.items()},
        },
        "budget_percent": options.budget,
        "clear_drop_percent": options.clear_drop,
        "default": dump(default),
        "bad": tried,
        "repair": {
            "recipe": recipe.model_dump(mode="json"),
            "seconds": round(seconds, 1),
            "order": [
                {"block": item.name, "sqnr_db": round(item.sqnr_db, 2)} for item in repaired.sensitivities
            ],
            "steps": [
                {"kept": list(step.kept), "drop_percent": step.value, "holds": step.holds}
                for step in repaired.steps
            ],
            "kept": list(holding.kept),
            "num_quantized": len(record.quantized) if record else 0,
            "passed_limits": repaired.variant.evidence.passed if repaired.variant.evidence else None,
            "scores": dump(final),
        },
    }


def part_of(data: MmeData, *, first: bool) -> MmeData:
    """Return the first or the second half of the images of every task."""
    tasks = {}
    for name, task in data.tasks.items():
        middle = len(task.images) // 2
        images = task.images[:middle] if first else task.images[middle:]
        tasks[name] = dataclasses.replace(task, images=images)
    return dataclasses.replace(data, tasks=tasks)


def open_task(data: MmeData, options: argparse.Namespace) -> MmeDrop:
    """Return the questions with the language model that answers them."""
    return open_mme_drop(data, options.llm, threads=options.threads, batch_size=16)


def score_baselines(
    bundle: Path, tasks: dict[Half, MmeDrop], threads: int | None
) -> dict[Half, TaskBaseline]:
    """Score the float32 graph."""
    opened = Bundle.open(bundle)
    variant = opened.variant("fp32")
    found: dict[Half, TaskBaseline] = {}
    for half, task in tasks.items():
        found[half] = TaskBaseline.of(
            task,
            opened.check(variant.graph),
            opened.manifest.preprocessing,
            takes_uint8=variant.input == "uint8",
            max_batch=variant.max_batch,
            threads=threads,
        )
        say(f"float32, {half}: {found[half].outcome.total:.2f}")
    return found


def clipping(percentile: float) -> QuantRecipe:
    """Return the default recipe with ranges that keep only so much of the calibration values, nothing smoothed."""
    default = load_recipe("int8").model_dump()
    return QuantRecipe.model_validate(
        default
        | {
            "name": f"clipped-{percentile:g}",
            "summary": f"Made bad on purpose: ranges keep {percentile:g} % of the values, outliers stay.",
            "activations": {"method": "percentile", "percentile": percentile},
            "smooth": {"alpha": 0.0},
        }
    )


def dump(found: dict[Half, TaskEvidence]) -> dict[str, Any]:
    """Return evidence as JSON, with the drop spelled out."""
    return {
        half: {"drop_percent": item.drop_percent, **item.model_dump(mode="json")}
        for half, item in found.items()
    }


def summarize(result: dict[str, Any]) -> str:
    """Return the totals as a Markdown table, and what was kept."""
    repair = result["repair"]
    rows = [("float32", "", *(f"{item['baseline']:.1f}" for item in result["default"].values()), "", "", "")]
    subjects = [
        ("default recipe", "", result["default"]),
        *((item["recipe"], "", item["scores"]) for item in result["bad"]),
        (f"{result['bad'][-1]['recipe']}, repaired", str(len(repair["kept"])), repair["scores"]),
    ]
    for name, kept, scores in subjects:
        search, held = scores["search"], scores["held out"]
        flips = f"{held['num_lost']} lost, {held['num_gained']} gained, p {held['p_value']:.2g}"
        totals = (f"{search['value']:.1f}", f"{held['value']:.1f}")
        drops = (f"{search['drop_percent']:.2f} %", f"{held['drop_percent']:.2f} %")
        rows.append((name, kept, *totals, *drops, flips))
    header = (
        "graph",
        "blocks kept",
        "total, search",
        "total, held out",
        "drop, search",
        "drop, held out",
        "flips",
    )
    kept = ", ".join(repair["kept"]) or "nothing"
    return f"{markdown_table(header, rows)}\n\nKept in float, of {len(repair['order'])} blocks: {kept}"


def say(text: str) -> None:
    """Tell the progress."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

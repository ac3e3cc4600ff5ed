"""The card of a trained sample: what it was made of, what it can do, what it cannot."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backgrounds import PHOTOGRAPHS
from settings import preparation

from pargo_export.bundle import atomic_write
from pargo_export.config import ProjectorKind

__all__ = ["write_card"]

_GUESSING = 75  # a coin for every question: 50 for acc, 25 for acc+

_NAMES: dict[ProjectorKind, str] = {"pargo": "ParGo", "qformer": "Q-Former", "linear": "linear", "mlp": "MLP"}

_CARD = """# A small trained multimodal model: {name}

A model of {total_millions:.1f} million parameters, trained from nothing on synthetic images by `examples/train_sample/` of
this project: an EVA-02-style tower, a projector ({name}, {visual_tokens} visual tokens), a Llama of 4 layers. It says what
it sees and then yes or no: "red, no". It exists to show on a task that export and quantization keep what was learnt, and is of
no other use: it knows seven shapes, seven colours, thirty words and sums of two digits, on images of 96 x 96 pixels.

| file | what |
|---|---|
| `model.safetensors` | tower and projector, official key layout, float16; configuration in its metadata |
| `llm/` | language model and tokenizer as transformers reads them, float16 |

## Scores

MME-form test set: {images_per_task} images a task, two questions each, unseen photographs and layouts; PyTorch float32 on the
float16 weights as stored, greedy generation, official template and scoring. A coin scores about {guessing}, a perfect model 200.

{table}

Total {total:.1f} of {most}. `fine_detail` is a task of this project, not of MME, and the official totals leave it out.

## Training

Data seed {data_seed}: {train_images} images. Tower: {tower_steps} steps of {tower_batch} images on labels of patches, then frozen.
Stage 1: {caption_steps} steps on captions; stage 2: {question_steps} steps on captions and questions; both train
projector and language model, seed {seed}. Seconds, one thread for training, on a machine that was shared: {seconds},
stages {training_seconds:.0f}.

    python examples/train_sample/train.py --output DIR --projector {projector} --seed {seed}

A photograph belongs to one split:

{splits}

## Limits

- Nothing is claimed about real photographs with real questions, or about the full-size ParGo.
- Answers are meant for the official calculator of ParGo, which reads the first 20 characters; MME's own reads four and
  does not find the word.
- Same words, fonts and shapes in training and test; what is new in the test are photographs, layouts and combinations.
- One seed, one run; how scores vary with the seed is in docs/accuracy.md.

## Licences

The model and the synthetic images: Apache-2.0, as the project. No photograph is included. Backgrounds of the training
images come from scikit-image (astronaut, public domain; coffee, camera, brick, gravel, grass, CC0; rocket and chelsea, public
domain and CC0; motorcycle, Middlebury Stereo 2014) and scikit-learn (china, flower: CC BY 2.0, Flickr users danielbuechele
and vultilion).
"""


def write_card(directory: Path, result: Mapping[str, Any], seconds: Mapping[str, float]) -> Path:
    """Write `CARD.md`.

    Args:
        directory: Where the sample lies.
        result: What `run_once` returned.
        seconds: What each part of the preparation took.
    """
    made = preparation()
    tasks = {name: row for name, row in result["tasks"].items() if name != "total"}
    rows = ["| task | score | acc | acc+ |", "|---|---|---|---|"]
    for name, row in tasks.items():
        rows.append(f"| {name} | {row['score']:.1f} | {row['acc']:.3f} | {row['acc_plus']:.3f} |")
    text = _CARD.format(
        projector=result["projector"],
        name=_NAMES[result["projector"]],
        total_millions=sum(result[f"{part}_parameters"] for part in ("tower", "projector", "language_model"))
        / 1e6,
        visual_tokens=result["visual_tokens"],
        images_per_task=made.images_per_task,
        guessing=_GUESSING,
        table="\n".join(rows),
        total=result["tasks"]["total"]["score"],
        most=200 * len(tasks),
        data_seed=made.seed,
        train_images=made.train_images,
        tower_steps=made.tower.steps,
        tower_batch=made.tower_batch,
        caption_steps=result["caption_steps"],
        question_steps=result["question_steps"],
        seed=result["seed"],
        seconds=", ".join(f"{name} {value:.0f}" for name, value in seconds.items()),
        training_seconds=result["training_seconds"],
        splits="\n".join(f"- {split}: {', '.join(names)}" for split, names in PHOTOGRAPHS.items()),
    )
    path = directory / "CARD.md"
    atomic_write(path, lambda stream: stream.write(text.encode()))
    return path

"""Make the synthetic data: an MME-form test set, and captioned images for calibration and pretraining.

    python examples/train_sample/make_data.py OUT
    python examples/train_sample/make_data.py OUT --seed 0 --images-per-task 60 --calibration 128 --captions 0

Writes `OUT/mme/` (`Data_json/TASK.txt`, `images/TASK/`), `OUT/calibration/` (`images/`, `captions.jsonl`) and, if asked
for, `OUT/captions/` with images of the training split. Photographs and layouts of the three are disjoint.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mme_data import write_mme
from pargocap import write_captions


def main() -> None:
    """Write the data."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("output", type=Path, help="Folder to write to.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images-per-task", type=int, default=60)
    parser.add_argument("--calibration", type=int, default=128, help="Images for calibration.")
    parser.add_argument("--captions", type=int, default=0, help="Captioned images of the training split.")
    options = parser.parse_args()
    count = write_mme(options.output / "mme", seed=options.seed, images_per_task=options.images_per_task)
    print(f"{options.output / 'mme'}: {count} questions")
    for folder, split, number in (
        ("calibration", "calibration", options.calibration),
        ("captions", "train", options.captions),
    ):
        if number:
            manifest = write_captions(options.output / folder, seed=options.seed, split=split, count=number)
            print(f"{manifest}: {number} images")


if __name__ == "__main__":
    main()

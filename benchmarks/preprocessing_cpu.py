"""Pictures to pixels on a CPU: one thread against two, JPEGs decoded whole against at a fraction of their size.

Pictures: photographs of scikit-image and scikit-learn as JPEGs of 4000 x 3000 pixels (12 megapixels, quality 90,
4:2:0), made in two ways: `upscaled` (bicubic: smooth, kind to every shortcut) and `tiled` (crops of all photographs at
their own size side by side: detail everywhere, unkind). Fitted to 336 x 336, mode `pad`. Speed: the four ways in turns,
one list of pictures a call; ratios of medians. Parity of the drafted pixels: difference in levels of 0..255, and what
it does to the visual tokens of a small random model, beside the same model's FP16 or INT8 numbers in docs/numerics.md.
OpenCV, if it is installed: only how far its pixels are from Pillow's, with the filters that come closest.

    python benchmarks/preprocessing_cpu.py --work work --json result.json
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from common import describe_environment, write_json
from numpy.typing import NDArray
from photographs import photographs
from PIL import Image
from small_bundle import small_bundle

from pargo_export import Runtime

SIZE = (4000, 3000)
NUM_TILES = (8, 8)
SEED = 0


def main() -> None:
    """Make the pictures, measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--work", type=Path, required=True, help="folder for the bundle; a made one is used again"
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    bundle = small_bundle(arguments.work, 336, num_layers=3)
    kinds = {"upscaled": upscaled_pictures(), "tiled": tiled_pictures()}
    result = {
        "environment": describe_environment(("numpy", "opencv-python-headless", "pillow")),
        "pictures": {kind: len(pictures) for kind, pictures in kinds.items()},
        "parity": {kind: measure_parity(bundle, pictures) for kind, pictures in kinds.items()},
        "speed": {
            kind: measure_speed(bundle, pictures, arguments.rounds) for kind, pictures in kinds.items()
        },
    }
    print(result)
    if arguments.json:
        write_json(arguments.json, result)


def upscaled_pictures() -> list[bytes]:
    """Return every photograph, as large as a camera takes it."""
    return [
        encode_jpeg(Image.fromarray(photograph).resize(SIZE, Image.Resampling.BICUBIC))
        for photograph in photographs().values()
    ]


def tiled_pictures() -> list[bytes]:
    """Return mosaics of random crops of all photographs, each pixel as it was taken."""
    sources, random = list(photographs().values()), np.random.default_rng(SEED)
    width, height = SIZE[0] // NUM_TILES[0], SIZE[1] // NUM_TILES[1]
    usable = [source for source in sources if source.shape[0] >= height and source.shape[1] >= width]
    pictures = []
    for _ in range(4):
        canvas = np.empty((SIZE[1], SIZE[0], 3), np.uint8)
        for row in range(NUM_TILES[1]):
            for column in range(NUM_TILES[0]):
                source = usable[random.integers(len(usable))]
                top = random.integers(source.shape[0] - height + 1)
                left = random.integers(source.shape[1] - width + 1)
                tile = source[top : top + height, left : left + width]
                canvas[row * height : (row + 1) * height, column * width : (column + 1) * width] = tile
        pictures.append(encode_jpeg(Image.fromarray(canvas)))
    return pictures


def encode_jpeg(image: Image.Image) -> bytes:
    """Return a JPEG as cameras write it."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90, subsampling="4:2:0")
    return file.getvalue()


def measure_parity(bundle: Path, pictures: list[bytes]) -> dict[str, Any]:
    """Return how far drafted pixels and their visual tokens are from those of whole pictures."""
    with (
        Runtime.open(bundle, threads=1) as whole,
        Runtime.open(bundle, threads=1, jpeg_draft=True) as drafted,
    ):
        spec = whole.bundle.manifest.preprocessing
        scale = 255 * np.array(spec.std, np.float32)[:, None, None]
        expected, found = (runtime.preprocess(pictures) for runtime in (whole, drafted))
        tokens, other = whole.encode(expected), whole.encode(found)
        result = pixel_difference(expected, found, scale)
        result["tokens_sqnr_db"] = [round(sqnr_db(*pair), 1) for pair in zip(tokens, other, strict=True)]
        result["worst_token_cosine"] = round(float(cosines(tokens, other).min()), 5)
        if find_spec("cv2") is not None:
            result["opencv"] = measure_opencv(pictures, expected, scale, whole)
    return result


def measure_opencv(
    pictures: list[bytes], expected: NDArray[np.float32], scale: NDArray[np.float32], runtime: Runtime
) -> dict[str, Any]:
    """Return how far OpenCV's decoder and its filters are from Pillow's, and how long one picture takes."""
    import cv2

    cv2.setNumThreads(1)
    result: dict[str, Any] = {}
    height, width = SIZE[1] * 336 // SIZE[0], 336
    for name in ("INTER_AREA", "INTER_CUBIC"):
        canvas = np.empty((len(pictures), 336, 336, 3), np.uint8)
        canvas[:] = runtime.bundle.manifest.preprocessing.pad_color
        begin = time.perf_counter()
        for index, picture in enumerate(pictures):
            image = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR_RGB)
            top = (336 - height) // 2
            canvas[index, top : top + height] = cv2.resize(
                image, (width, height), interpolation=getattr(cv2, name)
            )
        took_ms = (time.perf_counter() - begin) * 1e3 / len(pictures)
        begin = time.perf_counter()
        runtime.preprocess(pictures[:1])
        pillow_ms = (time.perf_counter() - begin) * 1e3
        found = runtime.preprocess([np.ascontiguousarray(image) for image in canvas])
        result[name] = pixel_difference(expected, found, scale) | {
            "speedup_one_thread": round(pillow_ms / took_ms, 2),
            "worst_token_cosine": round(
                float(cosines(runtime.encode(expected), runtime.encode(found)).min()), 5
            ),
        }
    return result


def pixel_difference(
    expected: NDArray[np.float32], found: NDArray[np.float32], scale: NDArray[np.float32]
) -> dict[str, Any]:
    """Return the difference of normalised pixels in levels of 0..255."""
    levels = np.abs(expected - found) * scale
    return {
        "max_levels": round(float(levels.max()), 2),
        "p99_levels": round(float(np.percentile(levels, 99)), 2),
        "mean_levels": round(float(levels.mean()), 3),
    }


def sqnr_db(expected: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """Signal to noise ratio of one image's tokens, as docs/numerics.md defines it."""
    noise = np.mean(np.square(expected - found, dtype=np.float64))
    return float(10 * np.log10(np.mean(np.square(expected, dtype=np.float64)) / noise))


def cosines(expected: NDArray[np.float32], found: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cosine of every token."""
    norms = np.linalg.norm(expected, axis=-1) * np.linalg.norm(found, axis=-1)
    return (expected * found).sum(-1) / norms


def measure_speed(bundle: Path, pictures: list[bytes], rounds: int) -> dict[str, Any]:
    """Return pictures a second of the four ways, and their ratios to one thread and whole pictures."""
    ways = {
        f"{'draft' if draft else 'full'}, {count} thread(s)": {
            "preprocess_threads": count,
            "jpeg_draft": draft,
        }
        for draft in (False, True)
        for count in (1, 2)
    }
    runtimes = {name: Runtime.open(bundle, threads=1, **options) for name, options in ways.items()}
    calls: dict[str, Callable[[], object]] = {
        name: (lambda runtime=runtime: runtime.preprocess(pictures)) for name, runtime in runtimes.items()
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for index in range(-1, rounds):
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            if index >= 0:
                times[name].append(time.perf_counter() - begin)
    for runtime in runtimes.values():
        runtime.close()
    medians = {name: float(np.median(values)) for name, values in times.items()}
    slowest = medians["full, 1 thread(s)"]
    return {
        name: {
            "pictures_per_s": round(len(pictures) / median, 2),
            "speedup": round(slowest / median, 2),
            "min_max_s": [round(min(times[name]), 3), round(max(times[name]), 3)],
        }
        for name, median in medians.items()
    }


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""From a camera to visual tokens, at a fixed rate, always of the latest frame.

The camera is read as fast as it delivers, so that its own buffer never holds old frames; at each tick of `--fps` the
frame of that moment is submitted. While one is computed, one waits, and a newer one takes its place. What has waited
for `--deadline-ms` is not computed at all. One line a second says how that goes.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pargo_export.assets import PHOTOGRAPH
from pargo_export.errors import DeadlineError, OverloadError
from pargo_export.runtime import Runtime, describe_provenance, write_tokens
from pargo_export.telemetry import JsonFormatter, prometheus

LOGGER = logging.getLogger("camera_tokens")
STOP = threading.Event()  # by Ctrl-C, SIGTERM, or a frame that failed


def make_clock(fps: float) -> Callable[[], bool]:
    """Return a function that says whether a frame of this moment is due."""
    period_s, next_s = 1 / fps, 0.0

    def is_due() -> bool:
        nonlocal next_s
        now_s = time.monotonic()
        if now_s < next_s - period_s / 10:  # cameras are not punctual
            return False
        next_s = (next_s if now_s < next_s + period_s else now_s) + period_s  # after a pause: go on from now
        return True

    return is_due


def generate_frames(is_due: Callable[[], bool], fps: float = 30) -> Iterator[NDArray[np.uint8]]:
    """Yield what a camera could see: a photograph, over which a disc and a bar move."""
    background = Image.open(PHOTOGRAPH).convert("RGB")
    (width, height), started_s = background.size, time.monotonic()
    for index in itertools.count():
        if STOP.wait(max(0.0, started_s + index / fps - time.monotonic())):
            return
        if is_due():
            picture, x, y = background.copy(), 7 * index % width, 5 * index % height
            draw = ImageDraw.Draw(picture)
            draw.ellipse((x - 40, y - 40, x + 40, y + 40), fill="orangered")
            draw.rectangle((width - x, 0, width - x + 25, height), fill="royalblue")
            yield np.asarray(picture)


def read_frames(source: str, is_due: Callable[[], bool]) -> Iterator[NDArray[np.uint8]]:
    """Yield frames of a camera, or of a video at its own speed; those that are not due are not decoded."""
    import cv2

    capture = cv2.VideoCapture(int(source) if source.isdigit() else source)
    if not capture.isOpened():
        raise SystemExit(f"{source}: OpenCV opens no such camera or video; check name and permissions")
    fps, started_s = capture.get(cv2.CAP_PROP_FPS) or 30, time.monotonic()
    for index in itertools.count():
        pause_s = 0.0 if source.isdigit() else started_s + index / fps - time.monotonic()
        if STOP.wait(max(0.0, pause_s)) or not capture.grab():
            return
        if is_due():
            yield np.asarray(cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB), np.uint8)


class Results:
    """What became of the frames: each that came `in` is at last encoded, dropped for a newer one, or late."""

    def __init__(self, deadline_s: float) -> None:
        self.deadline_s, self._lock = deadline_s, threading.Lock()
        self.counts = {"in": 0, "encoded": 0, "dropped": 0, "late": 0}
        self.tokens: NDArray[np.float32] | None = None
        self.error: BaseException | None = None
        self._latencies_ms: deque[float] = deque(maxlen=1000)

    def done(self, future: Future[NDArray[np.float32]], taken_s: float) -> None:
        """Take the result of a frame of the time `taken_s`. Runs in the thread that computes: it must be quick."""
        latency_s = time.monotonic() - taken_s
        error = None if future.cancelled() else future.exception()
        with self._lock:
            if future.cancelled() or isinstance(error, OverloadError):
                self.counts["dropped"] += 1
            elif isinstance(error, DeadlineError):
                self.counts["late"] += 1
            elif error is not None:
                self.error = error
                STOP.set()
            else:
                self.counts["encoded" if latency_s <= self.deadline_s else "late"] += 1
                self._latencies_ms.append(latency_s * 1e3)
                self.tokens = future.result()  # float32 [1, Q, C_llm]: here they go to the language model

    def log(self) -> None:
        """Log the numbers: as text for people, as fields for machines."""
        with self._lock:
            median_ms, p99_ms = np.percentile(self._latencies_ms or [np.nan], (50, 99)).round(1).tolist()
            fields = {**self.counts, "median_ms": median_ms, "p99_ms": p99_ms}
        text = " | ".join(f"{name} {value}" for name, value in fields.items())
        LOGGER.info(text, extra={f"camera_{name}": value for name, value in fields.items()})

    def log_every_second(self) -> None:
        """Log until it is time to stop."""
        while not STOP.wait(1.0):
            self.log()


def main() -> None:
    """Run with the arguments of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("bundle", help="directory that `pargo-export onnx` wrote")
    parser.add_argument("--frames", default="0", help="number of a camera, video file, or 'generated'")
    parser.add_argument("--fps", type=float, default=10, help="frames to encode in a second")
    parser.add_argument("--deadline-ms", type=float, default=200, help="from frame to tokens")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after this time")
    parser.add_argument("-o", "--output", help="write the last tokens to this file: .safetensors or .npz")
    parser.add_argument("--prometheus-port", type=int, help="serve metrics to this machine on this port")
    parser.add_argument("--json-logs", action="store_true", help="log lines of JSON")
    args = parser.parse_args()
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if args.json_logs else logging.Formatter("%(asctime)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: STOP.set())

    results, is_due, future = Results(args.deadline_ms / 1e3), make_clock(args.fps), None
    frames = generate_frames(is_due) if args.frames == "generated" else read_frames(args.frames, is_due)
    with Runtime.open(args.bundle, max_pending=1) as runtime:  # while one frame is computed, one waits
        if args.prometheus_port is not None:
            import prometheus_client  # pip install 'pargo-export[telemetry]'

            prometheus.instrument(runtime, name="camera")
            prometheus_client.start_http_server(args.prometheus_port, addr="127.0.0.1")
        threading.Thread(target=results.log_every_second, daemon=True).start()
        end_s = time.monotonic() + args.seconds
        for frame in frames:
            taken_s = time.monotonic()
            if taken_s >= end_s:
                break
            results.counts["in"] += 1
            future = runtime.submit(frame, when_full="replace", deadline_s=results.deadline_s)
            future.add_done_callback(partial(results.done, taken_s=taken_s))
        if future is not None and not STOP.is_set():
            wait([future])
    STOP.set()
    results.log()  # a frame that waited when a signal came was cancelled by the closing, and counts as dropped
    if results.error is not None:
        raise results.error
    if args.output and results.tokens is not None:
        metadata = describe_provenance(runtime, [args.frames])
        write_tokens(args.output, {"visual_tokens": results.tokens}, metadata, overwrite=True)


if __name__ == "__main__":
    main()

"""Subjects that a worker loads in the tests: like those of a bundle, with a fault made on purpose."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

from pargo_export.bench.openers import open_runtime
from pargo_export.bench.runtime_subject import RuntimeSubject
from pargo_export.runtime.runner import StageTimes


class _Faulty(RuntimeSubject):
    """Does one more thing before each run."""

    fault = "none"
    calls = 0

    def run(self, batch):
        """Compute, after the fault."""
        self.calls += 1
        if self.fault == "sleep":
            time.sleep(0.02)
        elif self.fault == "die":
            sys.stderr.write("about to die\n")
            sys.stderr.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.fault == "fail late" and self.calls > 1:
            raise ValueError("out of order")
        return super().run(batch)

    def encode(self, pictures):
        """Compute by `run`, whatever the fault."""
        tokens = self.run(self.preprocess(pictures))
        return -tokens if self.fault == "wrong" else tokens

    def close(self):
        """Take long, after the fault."""
        if self.fault == "hang":
            time.sleep(60)
        super().close()

    def run_stages(self, batch):
        """Tell times that are easy to recognise."""
        return self.run(batch), StageTimes(host_to_device_ms=0.0, compute_ms=2.0, device_to_host_ms=1.0)


def open_faulty(fault: str, stages: bool = False, **arguments: Any) -> _Faulty:
    """Open a graph with a fault."""
    if fault == "no loading":
        sys.stdout.write("printed by a library\n")  # no answer
        raise RuntimeError("it cannot be loaded")
    if fault == "exit":
        sys.stderr.write("a last word\n")
        sys.stderr.flush()
        os._exit(3)
    subject = _Faulty(open_runtime(**arguments).runtime, arguments["name"])
    subject.fault, subject.has_stages = fault, stages
    if fault == "small":
        subject.max_batch = 2
    return subject

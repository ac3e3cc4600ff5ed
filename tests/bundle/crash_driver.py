"""Break a process that commits, at every step, and look at what is left.

Run as a script by `test_crash.py`: `crash_driver.py SCENARIO DIRECTORY`; prints one JSON object. Each
attempt is a forked process. Its steps are all that it does to the file system but writing into open
files: an audit hook, which Python calls before it opens, renames, removes or makes a file, counts
them, and a wrapper around `os.fsync`. At the k-th step the
process kills itself, or the step fails as on a full disk, or as if interrupted from the keyboard.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bundle.generations import commit, commit_next, generation_of

from pargo_export.bundle import Bundle, BundleLockedError
from pargo_export.errors import BundleError

STEPS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir"}
CRASHED, OK, INTERRUPTED, REFUSED = 1, 0, 2, 3
KILLED = -signal.SIGKILL


def break_at(step: int, action: Callable[[], None]) -> None:
    """Perform `action` before the `step`-th step of this process, counted from 1."""
    steps = itertools.count(1)
    fsync = os.fsync

    def count() -> None:
        if next(steps) == step:
            action()

    def counted_fsync(descriptor: int) -> None:
        count()
        fsync(descriptor)

    os.fsync = counted_fsync

    def hook(event: str, arguments: tuple) -> None:
        if event in STEPS or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            count()

    sys.addaudithook(hook)


def kill() -> None:
    """Die at once, as by `kill -9`."""
    os.kill(os.getpid(), signal.SIGKILL)


def fill_disk() -> None:
    """Fail as on a full disk."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def interrupt() -> None:
    """Fail as by Ctrl-C."""
    raise KeyboardInterrupt


def fork(work: Callable[[], None]) -> tuple[int, str]:
    """Run `work` in a child; its exit code, or minus the signal that killed it, and its error message."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = CRASHED
        try:
            work()
            code = OK
        except BundleError as error:
            code = REFUSED
            os.write(writer, str(error).encode())
        except KeyboardInterrupt:
            code = INTERRUPTED
        except BaseException:  # noqa: BLE001
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.close(writer)
    with open(reader) as file:  # noqa: PTH123
        message = file.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), message


@dataclass
class Attempt:
    """A commit of generation `old + 1` over generation `old` that was broken at `step`."""

    step: int
    path: Path
    code: int
    message: str


def attempts(directory: Path, old: int, action: Callable[[], None], size_bytes: int) -> Iterator[Attempt]:
    """Break the same commit one step later each time, until it is over before the step is reached."""
    reached = directory / "reached"

    def mark_and_act() -> None:
        os.close(os.open(reached, os.O_CREAT))
        action()

    for step in itertools.count(1):
        path = directory / str(step) / "bundle"
        path.parent.mkdir()
        reached.unlink(missing_ok=True)
        if old:
            commit(path, old, size_bytes)

        def work(path: Path = path, step: int = step) -> None:
            break_at(step, mark_and_act)
            commit(path, old + 1, size_bytes)

        code, message = fork(work)
        if not reached.exists():
            assert code == OK, (step, code, message)
            return
        yield Attempt(step, path, code, message)
        shutil.rmtree(path.parent)


def kill_every_step(directory: Path, old: int) -> list[int]:
    """Kill a commit before each of its steps; the generations that are left."""
    size_bytes = 300_000
    seen = []
    for attempt in attempts(directory, old, kill, size_bytes):
        assert attempt.code == KILLED, attempt
        seen.append(generation_of(attempt.path, size_bytes))
        commit(attempt.path, 7, size_bytes)  # the bundle can be written again, and nothing is left over
        assert generation_of(attempt.path, size_bytes) == 7
        assert not (attempt.path / ".transaction").exists()
    return seen


def kill_every_recovery(directory: Path) -> list[int]:
    """Kill a commit before each of its steps, and then the recovery, each time one step later."""
    size_bytes = 1000
    kills = []
    for attempt in attempts(directory, 1, kill, size_bytes):
        for step in itertools.count(1):

            def recover(path: Path = attempt.path, step: int = step) -> None:
                break_at(step, kill)
                Bundle.open(path)

            code, message = fork(recover)
            if code == OK:
                break
            assert code == KILLED, (attempt, step, message)
        kills.append(step - 1)
        assert generation_of(attempt.path, size_bytes) in (1, 2)
    return kills


def fail_every_step(directory: Path, old: int) -> list[int]:
    """Let each step of a commit fail as on a full disk; the process lives, and must say the truth."""
    size_bytes = 1000
    seen = []
    for attempt in attempts(directory, old, fill_disk, size_bytes):
        assert attempt.code in (OK, REFUSED), attempt
        undecided = attempt.message.endswith("as it was before.")
        if attempt.code == REFUSED:
            assert "free space there" in attempt.message, attempt
            assert undecided or attempt.message.endswith("completes it."), attempt
        if undecided:
            left_over = attempt.path / ".transaction" if old else attempt.path
            assert not left_over.exists(), attempt
        generation = generation_of(attempt.path, size_bytes)
        assert generation == (old if undecided else old + 1), attempt
        seen.append(generation)
    return seen


def interrupt_every_step(directory: Path) -> list[int]:
    """Interrupt a commit at each of its steps from the keyboard."""
    size_bytes = 1000
    seen = []
    for attempt in attempts(directory, 1, interrupt, size_bytes):
        assert attempt.code == INTERRUPTED, attempt
        seen.append(generation_of(attempt.path, size_bytes))
        commit(attempt.path, 7, size_bytes)
    return seen


def kill_at_random(directory: Path, rounds: int) -> list[int]:
    """Kill a process that commits generation after generation, at random times."""
    size_bytes = 400_000
    path = directory / "bundle"
    delays = random.Random(20260118)  # noqa: S311
    start = time.monotonic()
    commit(path, 1, size_bytes)
    longest_s = 4 * (time.monotonic() - start)
    seen = [1]
    for _ in range(rounds):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            for number in itertools.count(seen[-1] + 1):
                commit(path, number, size_bytes)
                os.write(writer, b"%d\n" % number)
        os.close(writer)
        time.sleep(delays.uniform(0.0, longest_s))
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == KILLED
        with open(reader) as file:  # noqa: PTH123
            acknowledged = int((file.read().split() or [seen[-1]])[-1])
        seen.append(generation_of(path, size_bytes))
        assert seen[-1] in (acknowledged, acknowledged + 1), (seen[-1], acknowledged)
    return seen


def read_while_writing(directory: Path, duration_s: float) -> list[int]:
    """Open the bundle again and again while another process commits."""
    size_bytes = 10_000
    path = directory / "bundle"
    commit(path, 1, size_bytes)
    child = os.fork()
    if child == 0:
        while (
            True
        ):  # a reader may hold the lock for a moment, to finish a commit that it takes for interrupted
            retry(lambda: commit_next(path, size_bytes))
    seen = []
    end = time.monotonic() + duration_s
    try:
        while time.monotonic() < end:
            seen.append(int(Bundle.open(path).manifest.tools["generation"]))
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert seen == sorted(seen)
    return seen


def retry(work: Callable[[], None]) -> None:
    """Do `work` as soon as no other writer is in the way."""
    while True:
        with contextlib.suppress(BundleLockedError):
            return work()
        time.sleep(0.001)


def write_together(directory: Path, num_writers: int, commits: int) -> list[int]:
    """Let several processes commit at once; whoever meets a lock tries again."""
    size_bytes = 1000
    path = directory / "bundle"
    children = []
    for _ in range(num_writers):
        child = os.fork()
        if child == 0:
            code = CRASHED
            try:
                for _ in range(commits):
                    retry(lambda: commit_next(path, size_bytes))
                code = OK
            except BaseException:  # noqa: BLE001
                traceback.print_exc()
            finally:
                os._exit(code)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert codes == [OK] * num_writers, codes
    return [generation_of(path, size_bytes)]


def main(scenario: str, directory: Path) -> list[int]:
    """Run one scenario."""
    warm_up = directory / "warm-up"
    commit(warm_up, 1, 10)  # so that nothing is imported while steps are counted
    generation_of(warm_up, 10)
    shutil.rmtree(warm_up)
    scenarios = {
        "kill-create": lambda: kill_every_step(directory, 0),
        "kill-replace": lambda: kill_every_step(directory, 1),
        "kill-recovery": lambda: kill_every_recovery(directory),
        "kill-at-random": lambda: kill_at_random(directory, rounds=40),
        "full-create": lambda: fail_every_step(directory, 0),
        "full-replace": lambda: fail_every_step(directory, 1),
        "interrupt": lambda: interrupt_every_step(directory),
        "readers": lambda: read_while_writing(directory, duration_s=1.5),
        "writers": lambda: write_together(directory, num_writers=3, commits=15),
    }
    return scenarios[scenario]()


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]))))  # noqa: T201

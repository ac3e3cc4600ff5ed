"""What a worker does, in this process: which runs are made, on which pictures, and which are timed."""

from __future__ import annotations

import pytest

from pargo_export.bench.inputs import load_pictures
from pargo_export.bench.session import Session


@pytest.fixture
def session(make_spec, tmp_path):
    """Return a session with three pictures, and its subject."""
    spec = make_spec("counted", "none")
    files = []
    for index, content in enumerate(load_pictures().contents[:3]):
        files.append(tmp_path / f"picture-{index}")
        files[-1].write_bytes(content)
    made = Session(spec.factory, spec.arguments, ["no_such_library"], [str(path) for path in files])
    yield made
    made.methods["close"]()


def test_short_blocks_are_timed_from_the_first_run_on(session):
    """Three runs are three timed ones; four are preceded by one that is not timed, for each caller."""
    subject = session._subject
    where = {"boundary": "run", "batch": 1}
    for concurrency, iterations, made in ((1, 3, 3), (1, 4, 5), (2, 7, 7), (2, 8, 10)):
        subject.calls = 0
        answer = session.methods["time"](concurrency=concurrency, iterations=iterations, **where)
        assert (len(answer["samples_ms"]["run"]), subject.calls) == (iterations, made)
    subject.calls = 0
    assert session.methods["warm_up"](concurrency=1, runs=6, **where) == {}
    assert subject.calls == 6


def test_pictures_take_turns(session):
    """Runs go through all pictures, and a batch that is larger begins again with the first."""
    pictures = session._pictures
    assert session._batch_of(2, 0) == pictures[:2]
    assert session._batch_of(2, 1) == [pictures[2], pictures[0]]
    assert session._batch_of(4, 0) == [*pictures, pictures[0]]
    seen = []
    encode = session._subject.encode
    session._subject.encode = lambda batch: (seen.append(batch), encode(batch))[1]
    session.methods["time"](boundary="end_to_end", batch=1, concurrency=1, iterations=3)
    assert seen == [[picture] for picture in pictures]

from __future__ import annotations

import click
import pytest

from pargo_export.cli.bench_arguments import (
    parse_counts,
    parse_duration,
    parse_load,
    parse_milliseconds,
    parse_share,
)

CONTEXT = click.Context(click.Command("bench"))
PARAMETER = click.Option(["--option"])


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (parse_duration, "10s", 10),
        (parse_duration, "500ms", 0.5),
        (parse_duration, "1.5m", 90),
        (parse_duration, "2min", 120),
        (parse_duration, "1h", 3600),
        (parse_duration, " 3 ", 3),
        (parse_milliseconds, "50ms", 50),
        (parse_milliseconds, "0.25s", 250),
        (parse_counts, "1, 2,4", (1, 2, 4)),
        (parse_load, "auto", "auto"),
        (parse_load, "10,.5", (10, 0.5)),
        (parse_share, "5%", 0.05),
        (parse_share, "0 %", 0),
    ],
)
def test_what_is_understood(parse, text, value):
    """Durations, numbers, loads and shares as people write them; nothing stays nothing."""
    assert parse(CONTEXT, PARAMETER, text) == pytest.approx(value)
    assert parse(CONTEXT, PARAMETER, None) is None


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_duration, "0s"),
        (parse_duration, "-1s"),
        (parse_duration, "10 days"),
        (parse_duration, "soon"),
        (parse_milliseconds, "50"),
        (parse_counts, ""),
        (parse_counts, "1,x"),
        (parse_counts, "0"),
        (parse_load, "fast"),
        (parse_load, "10,0"),
        (parse_share, "0.05"),
        (parse_share, "-5%"),
    ],
)
def test_what_is_refused(parse, text):
    """The message repeats what was found, and shows an example."""
    with pytest.raises(click.BadParameter, match=r"found .*expected"):
        parse(CONTEXT, PARAMETER, text)

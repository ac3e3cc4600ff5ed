"""Which images are used, in which order; and one hash for the set that was."""

from __future__ import annotations

import hashlib
import random
import re
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pargo_calibration.errors import CalibrationDataError
from pargo_calibration.readers.source import DataSource, Item

__all__ = ["Duplicate", "Unreadable", "dataset_sha256", "sample"]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An entry whose image could not be read.

    Attributes:
        name: Name of the entry.
        reason: What was found, and how to mend it.
    """

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Duplicate:
    """An entry whose content has been seen before.

    Attributes:
        name: Name of the entry.
        of: Name of the item that was yielded.
    """

    name: str
    of: str


def sample(
    source: DataSource, *, seed: int, shard: tuple[int, int] = (0, 1)
) -> Iterator[Item | Unreadable | Duplicate]:
    """Yield the images of a source in an order that only the seed decides, each content once.

    Items come lazily: stop when there are enough. An image taken after others were set apart is really
    new, because copies under other names are held back. Each shard knows its own items only.

    Args:
        source: Where the images are.
        seed: Decides the order.
        shard: `(i, n)` takes every n-th entry of that order, beginning with the i-th.

    Raises:
        CalibrationDataError: The shard does not exist.
    """
    number, count = shard
    if not 0 <= number < count:
        raise CalibrationDataError(f"shard {number} of {count} does not exist, expected 0 to {count - 1}")
    return _sample(source, seed, number, count)


def dataset_sha256(hashes: Iterable[str]) -> str:
    """One hash for the images used, whatever their order.

    Raises:
        CalibrationDataError: Something is no SHA-256 in lower-case hexadecimal.
    """
    ordered = sorted(hashes)
    wrong = [found for found in ordered if not re.fullmatch(r"[0-9a-f]{64}", found)]
    if wrong:
        raise CalibrationDataError(f"found {wrong[0]!r}, expected the sha256 of items")
    return hashlib.sha256("\n".join(ordered).encode()).hexdigest()


def _sample(
    source: DataSource, seed: int, number: int, count: int
) -> Iterator[Item | Unreadable | Duplicate]:
    entries = source.entries()
    order = array("q", range(len(entries)))
    random.Random(seed).shuffle(order)  # noqa: S311  an order that can be repeated, not a secret
    names: dict[str, str] = {}
    for index in order[number::count]:
        entry = entries[index]
        try:
            item = source.load(entry)
        except CalibrationDataError as error:
            yield Unreadable(entry.name, str(error))
            continue
        if item.sha256 in names:
            yield Duplicate(item.name, names[item.sha256])
        else:
            names[item.sha256] = item.name
            yield item

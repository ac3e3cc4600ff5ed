"""Yes/no questions about a scene, in the phrasing of MME (arXiv 2306.13394): each has an answer that is true.

The "No" question of a pair is hard where it can be: its colour, shape, digit or texture occurs elsewhere in the image,
or differs from the truth in one letter or by one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from scenes import COLORS, SHAPES, TASKS, TEXTURES, WORDS, Item, Scene, Text, place

__all__ = ["ENDING", "Pair", "article", "pairs", "plural", "question_pair"]

ENDING = " Please answer yes or no."
_FAR_PIXELS = 16  # two things are left of one another from this distance of their centres on
_MIDDLE_PIXELS = 10  # a thing is in one half of the image if its centre is so far from the middle
_MIDDLE = 48
_MOST = 4  # things of a kind, in the scenes of `count`


@dataclass(frozen=True)
class Pair:
    """Two questions about one image.

    Attributes:
        task: One of `scenes.TASKS`.
        yes: Question whose answer is Yes.
        no: Question whose answer is No.
        seen_yes: What an answer to `yes` rests on, in a word or two: the colour that is there, the place of a thing.
        seen_no: What an answer to `no` rests on.
    """

    task: str
    yes: str
    no: str
    seen_yes: str
    seen_no: str

    @property
    def answers(self) -> tuple[str, str]:
        """What a model is trained to answer to `yes` and to `no`: what it sees, then the word that is scored.

        From the word alone a model from nothing does not begin to look. The official calculator reads the first 20
        characters of an answer, so that it finds the word; MME's own reads four and would not.
        """
        return f"{self.seen_yes}, yes", f"{self.seen_no}, no"


def pairs(rng: np.random.Generator, scene: Scene) -> Iterator[Pair]:
    """Yield one random pair for each task about which `scene` can be asked."""
    for task in TASKS:
        pair = question_pair(rng, scene, task)
        if pair is not None:
            yield pair


def question_pair(rng: np.random.Generator, scene: Scene, task: str) -> Pair | None:
    """Return a random pair for `task`, or `None` if the scene holds nothing to ask about.

    Raises:
        KeyError: There is no such task.
    """
    found = _ASKERS[task](rng, scene)
    if found is None:
        return None
    yes, no, *seen = found
    return Pair(task, yes + ENDING, no + ENDING, seen[0], seen[-1])


def plural(shape: str) -> str:
    """Return the plural of a shape."""
    return shape + ("es" if shape == "cross" else "s")


def article(word: str) -> str:
    """Return `word` with `a` or `an` before it."""
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


# Question with Yes, question with No, what is seen; twice if it differs between the two.
_Found: TypeAlias = "tuple[str, str, str] | tuple[str, str, str, str] | None"
_NOWHERE = "nowhere"
_Asker = Callable[[np.random.Generator, Scene], _Found]


def _pick(rng: np.random.Generator, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]


def _other(rng: np.random.Generator, choices: Sequence[str], true: str, hard: Sequence[str] = ()) -> str:
    """Return a choice that differs from `true`: one of `hard`, half the time, if there are any."""
    near = [choice for choice in hard if choice != true]
    if near and rng.random() < 0.5:
        return _pick(rng, near)
    return _pick(rng, [choice for choice in choices if choice != true])


def _existence(rng: np.random.Generator, scene: Scene) -> _Found:
    present = sorted({item.shape for item in scene.items})
    absent = [shape for shape in SHAPES if shape not in present]
    if not present or not absent:
        return None
    there, missing = _pick(rng, present), _pick(rng, absent)
    where = next(place(item.x, item.y) for item in scene.items if item.shape == there)
    question = "Is there {} in this image?"
    return question.format(article(there)), question.format(article(missing)), where, _NOWHERE


def _count(rng: np.random.Generator, scene: Scene) -> _Found:
    counts = Counter(item.shape for item in scene.items)
    if not counts:
        return None
    shape, number = counts.most_common(1)[0]
    # Any other number with equal chance, so that no number is more often right than wrong.
    wrong = int(rng.choice([other for other in range(1, _MOST + 1) if other != number]))
    yes, no = (_counting(shape, value) for value in (number, wrong))
    return yes, no, str(number)


def _counting(shape: str, number: int) -> str:
    if number == 1:
        return f"Is there only one {shape} in the image?"
    return f"Are there {number} {plural(shape)} in the image?"


def _position(rng: np.random.Generator, scene: Scene) -> _Found:
    items = _unique(scene.items)
    if not items:
        return None
    candidates = [(item, other) for item in items for other in items if item is not other]
    if candidates and rng.random() < 0.6:
        item, other = candidates[int(rng.integers(len(candidates)))]
        across, down = item.x - other.x, item.y - other.y
        horizontal = abs(across) >= abs(down)
        if max(abs(across), abs(down)) < _FAR_PIXELS:
            return None
        words = ("on the left side of", "on the right side of") if horizontal else ("above", "below")
        right = (across if horizontal else down) > 0
        yes, no = words[right], words[not right]
        return (
            f"Is the {item.shape} {yes} the {other.shape}?",
            f"Is the {item.shape} {no} the {other.shape}?",
            yes.removeprefix("on the ").removesuffix(" side of"),
        )
    item = items[int(rng.integers(len(items)))]
    across, down = item.x - _MIDDLE, item.y - _MIDDLE
    horizontal = abs(across) >= abs(down)
    if max(abs(across), abs(down)) < _MIDDLE_PIXELS:
        return None
    words = ("left", "right") if horizontal else ("top", "bottom")
    right = (across if horizontal else down) > 0
    yes, no = words[right], words[not right]
    return (
        f"Is the {item.shape} in the {yes} half of the image?",
        f"Is the {item.shape} in the {no} half of the image?",
        yes,
    )


def _color(rng: np.random.Generator, scene: Scene) -> _Found:
    items = _unique(scene.items)
    if not items:
        return None
    item = items[int(rng.integers(len(items)))]
    wrong = _other(rng, COLORS, item.color, [other.color for other in scene.items])
    question = f"Is the {item.shape} {{}}?"
    return question.format(item.color), question.format(wrong), item.color


def _unique(items: Sequence[Item]) -> list[Item]:
    """Return the items whose shape occurs once, so that "the star" is clear."""
    counts = Counter(item.shape for item in items)
    return [item for item in items if counts[item.shape] == 1]


def _ocr(rng: np.random.Generator, scene: Scene) -> _Found:
    if scene.text is None or scene.text.kind == "sum":
        return None
    right, wrong = scene.text.content, _misread(rng, scene.text)
    question = f'Is the {scene.text.kind} in the image "{{}}"?'
    return question.format(right), question.format(wrong), right


def _misread(rng: np.random.Generator, text: Text) -> str:
    """Return another word, preferably with a letter at the same place, or a number with another digit."""
    if text.kind == "word":
        near = [
            word
            for word in WORDS
            if len(word) == len(text.content) and any(a == b for a, b in zip(word, text.content, strict=True))
        ]
        return _other(rng, WORDS, text.content, near)
    place = int(rng.integers(2))
    digits = [digit for digit in "123456789" if digit != text.content[place]]
    return text.content[:place] + _pick(rng, digits) + text.content[place + 1 :]


def _fine_detail(rng: np.random.Generator, scene: Scene) -> _Found:
    textured = [item for item in _unique(scene.items) if item.size == "small"]
    tiny = [item for item in scene.items if item.size == "tiny"]
    if textured and (not tiny or rng.random() < 0.5):
        item = textured[int(rng.integers(len(textured)))]
        wrong = _other(rng, TEXTURES, item.texture)
        question = f"Is the small {item.shape} {{}}?"
        return question.format(item.texture), question.format(wrong), item.texture
    if not tiny:
        return None
    item = tiny[int(rng.integers(len(tiny)))]
    present = {(other.color, other.shape) for other in tiny}
    wrongs = [
        (color, shape)
        for color in COLORS
        for shape in SHAPES
        if (color, shape) not in present and (color == item.color) != (shape == item.shape)
    ]
    color, shape = wrongs[int(rng.integers(len(wrongs)))]
    yes, no = (
        article(f"tiny {color} {shape}") for color, shape in ((item.color, item.shape), (color, shape))
    )
    question = "Is there {} in this image?"
    return question.format(yes), question.format(no), place(item.x, item.y), _NOWHERE


def _calculation(rng: np.random.Generator, scene: Scene) -> _Found:
    if scene.text is None or scene.text.kind != "sum":
        return None
    right = sum(int(part) for part in scene.text.content.split("+"))
    wrong = right + int(rng.choice([-3, -2, -1, 1, 2, 3]))
    wrong = wrong if wrong > 0 else right + 1
    question = "Is the answer to the arithmetic question in the image {}?"
    return question.format(right), question.format(wrong), str(right)


_ASKERS: dict[str, _Asker] = {
    "existence": _existence,
    "count": _count,
    "position": _position,
    "color": _color,
    "OCR": _ocr,
    "fine_detail": _fine_detail,
    "numerical_calculation": _calculation,
}

"""What was evaluated, on what, and how to read it."""

from __future__ import annotations

from pargo_export.evaluation.mme.records import MmeEvaluation
from pargo_export.evaluation.mme.scoring import NUM_CHARACTERS
from pargo_export.report import text
from pargo_export.report.parts import Block, Facts, Note, Section, Table

__all__ = ["about", "reading"]


def about(found: MmeEvaluation) -> Section:
    """Name bundle, data, language model and machine, and what ran each variant."""
    bundle, data, model, settings = found.bundle, found.data, found.language_model, found.settings
    facts = (
        ("Bundle", "" if bundle is None else f"{bundle.path}, manifest {bundle.manifest_sha256[:16]}"),
        ("Data", "" if data is None else _data(data.path, data.tasks, data.sha256)),
        ("Left out", "" if data is None else _left_out(data.skipped)),
        ("Language model", "" if model is None else f"{model.name}, files {model.sha256[:16]}"),
        ("Prompt", "" if model is None else model.template),
        (
            "Generation",
            "" if model is None else ", ".join(f"{name} {value}" for name, value in model.settings.items()),
        ),
        ("Command", "" if settings is None else settings.command),
        ("Machine", "" if found.environment is None else found.environment.cpu.model),
        ("Ended", found.created),
    )
    rows = tuple(
        (
            item.name,
            item.backend or "-",
            item.precision or "-",
            item.description or "-",
            item.results,
            text.milliseconds(item.encode_ms),
            "-" if item.seconds is None else f"{text.number(item.seconds)} s",
        )
        for item in found.variants
    )
    columns = ("variant", "ran on", "precision", "description", "answers", "an image to tokens", "answering")
    blocks: tuple[Block, ...] = (Facts(facts), Table("Variants", columns, rows, num_text=5, is_open=True))
    return Section("about", "What was evaluated", blocks)


def reading(found: MmeEvaluation) -> Section:
    """Say how answers are read, and what the numbers do not say."""
    notes = [
        Note(
            f"An answer is yes if its first {NUM_CHARACTERS} characters contain yes, else no if they contain no, else other, "
            "which counts as wrong. That is how ParGo's calculator reads; MME's own looks at 4 characters."
        ),
        Note(
            "A score of a small data set is coarse: the interval says how much of a difference the choice of images explains."
        ),
    ]
    if any(item.scores.strict_official for item in found.variants):
        notes.append(
            Note("Results were read just as the official calculator does: two lines in turn are an image.")
        )
    return Section("reading", "How to read this", tuple(notes))


def _data(path: str, tasks: dict[str, int], sha256: str) -> str:
    images = sum(tasks.values())
    return f"{path}, {text.plural(len(tasks), 'task')}, {text.images(images)}, {2 * images} questions, {sha256[:16]}"


def _left_out(skipped: tuple[str, ...]) -> str:
    return f"{text.images(len(skipped))} that are missing" if skipped else ""

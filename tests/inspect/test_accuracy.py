from __future__ import annotations

from pargo_export.bundle import Evidence, Limits, StageEvidence
from pargo_export.graph.check import summarize_evidence
from pargo_export.inspect import group_kept, worst_by_stage


def _measured(stage, source, *, cosine, max_abs=0.1, mean=None, ratio=None):
    return StageEvidence(
        stage=stage,
        batch=1,
        source=source,
        max_abs=max_abs,
        cosine=cosine,
        reference_std=1.0,
        mean_cosine=mean,
        sqnr_db=ratio,
    )


MEASURED = (
    _measured("features", "cat", cosine=0.8, max_abs=0.3, mean=0.99, ratio=25.0),
    _measured("tokens", "cat", cosine=0.95, max_abs=0.1, mean=0.98, ratio=21.0),
    _measured("features", "dog", cosine=0.9, max_abs=0.2, mean=0.97, ratio=20.0),
    _measured("tokens", "dog", cosine=0.94, max_abs=0.4, mean=0.99, ratio=22.0),
)


def test_worst_by_stage():
    """Each number is the worst of the stage's images; the image is that of the lowest ratio."""
    features, tokens = worst_by_stage(MEASURED)
    assert (features.stage, tokens.stage) == ("features", "tokens")
    assert (features.mean_cosine, features.worst_cosine, features.sqnr_db) == (0.97, 0.8, 20.0)
    assert (features.max_abs, features.worst_source) == (0.3, "dog")
    assert (tokens.mean_cosine, tokens.worst_cosine, tokens.sqnr_db) == (0.98, 0.94, 21.0)
    assert (tokens.max_abs, tokens.worst_source) == (0.4, "cat")


def test_old_evidence_has_no_means():
    """Without means and ratios the smallest cosine names the image."""
    measured = [_measured("s", "cat", cosine=0.9), _measured("s", "dog", cosine=0.8)]
    (found,) = worst_by_stage(measured)
    assert (found.mean_cosine, found.sqnr_db, found.worst_source) == (None, None, "dog")


def test_kept_are_grouped_by_reason():
    """The commonest reason comes first; linears keep their order."""
    kept = {"a": "small", "b": "budget", "c": "budget"}
    assert list(group_kept(kept).items()) == [("budget", ("b", "c")), ("small", ("a",))]
    assert group_kept({}) == {}


def test_summary_of_quantized_evidence():
    """Means and ratios stand in the summary where they have limits."""
    limits = Limits(sqnr_db=15.0)
    evidence = Evidence(stages=MEASURED, limits=limits, passed=True, reference="fp32")
    text = "mean cosine 0.97000, SQNR 20.0 dB, worst token 0.80000 in 4 measurements"
    assert summarize_evidence(evidence) == text
    strict = evidence.model_copy(update={"limits": Limits(max_abs=0.1, cosine=0.99)})
    assert summarize_evidence(strict) == "max abs 0.4, cosine 0.800000 in 4 measurements"
    old = evidence.model_copy(update={"stages": (_measured("s", "cat", cosine=0.9),)})
    assert summarize_evidence(old).startswith("mean cosine not measured, SQNR not measured, worst token 0.9")

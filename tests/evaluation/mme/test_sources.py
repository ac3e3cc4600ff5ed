"""What identifies the source of visual tokens."""

from __future__ import annotations

from golden_cases import golden_case

from pargo_export.bundle import Bundle
from pargo_export.evaluation.mme.sources import Subject, open_source


def test_the_hash_names_what_decides_the_tokens(exported_bundle):
    """Weights, backend and preprocessing each change it; opening the same thing again does not."""
    bundle = Bundle.open(exported_bundle)
    fitted = bundle.manifest.preprocessing.model_copy(update={"mode": "resize"})
    other = Bundle(bundle.path, bundle.manifest.model_copy(update={"preprocessing": fitted}))
    checkpoint = golden_case("pargo_w2").checkpoint

    def identify(text, of=bundle):
        with open_source(Subject.parse(text), of, checkpoint=checkpoint, threads=1) as source:
            return source.sha256

    names = ("pytorch", "fp32@onnxruntime", "fp32@emulated", "bf16@emulated")
    found = [identify(name) for name in names] + [identify(name, other) for name in names]
    assert len(set(found)) == 8
    assert identify("fp32@onnxruntime") == found[1]

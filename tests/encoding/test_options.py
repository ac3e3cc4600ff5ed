from __future__ import annotations

import subprocess
import sys

import pytest

from pargo_export.encoding import EncodeOptions
from pargo_export.errors import ConfigError

BLOCKED = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("pyarrow", "ray", "torch", "pandas"):
            raise ModuleNotFoundError(f"{name} is not installed", name=name)
sys.meta_path.insert(0, Blocker())
from pargo_export.encoding import EncodeOptions, encode_dataset, open_encoded
from pargo_export.errors import MissingDependencyError
bundle, source, out = sys.argv[1:]
encode_dataset(bundle, source, out, EncodeOptions(variant="fp32", format="safetensors", threads=1))
print(len(list(open_encoded(out))))
for options in ({}, {"executor": "ray", "format": "safetensors"}):
    try:
        encode_dataset(bundle, source, out + "-no", EncodeOptions(**options))
    except MissingDependencyError as error:
        print(error)
"""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "zarr"}, "format: found 'zarr', expected one of parquet, safetensors"),
        ({"precision": "int8"}, "fp16, fp32"),
        ({"on_error": "skip"}, "stop, record"),
        ({"executor": "dask"}, "local, ray"),
        ({"shard_size": 0}, "shard_size: found 0, expected at least 1"),
        ({"workers": 2}, "workers: of use to Ray alone"),
        ({"address": "auto", "gpus": 1}, "address, gpus: of use to Ray alone"),
        ({"executor": "ray", "gpus": -1}, "gpus: found -1"),
        ({"carry": ("a", "a")}, "expected each column once"),
    ],
)
def test_options_that_do_not_fit(options, message):
    """They are refused when they are made."""
    with pytest.raises(ConfigError, match=message):
        EncodeOptions(**options)


def test_a_device_needs_neither_ray_nor_arrow(exported_bundle, photos, tmp_path):
    """A folder goes into safetensors shards without them; what needs them says which extra brings it."""
    command = [sys.executable, "-c", BLOCKED, exported_bundle, photos, tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    count, arrow, ray = done.stdout.splitlines()
    assert count == "11"
    assert "pip install 'pargo-export[calibration]'" in arrow
    assert "--format safetensors does without" in arrow
    assert "pip install 'pargo-export[ray]'" in ray

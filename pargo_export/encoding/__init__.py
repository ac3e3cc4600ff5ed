"""A data set of images to visual tokens: shards on disk, made by one process or by many machines, exactly once.

::

    from pargo_export.encoding import EncodeOptions, encode_dataset, open_encoded

    encode_dataset("bundle", "photos/", "tokens/", EncodeOptions(precision="fp16"))
    with open_encoded("tokens") as encoded:
        for name, tokens in encoded:        # float16 [Q, C_llm]
            ...

Letters of shapes: B batch, Q visual tokens of an image, C their channels. Importing this package imports neither Ray
nor PyArrow.
"""

from __future__ import annotations

from pargo_export.encoding.encode import EncodedDataset, encode_dataset
from pargo_export.encoding.options import EncodeOptions
from pargo_export.encoding.reader import EncodedTokens, open_encoded
from pargo_export.encoding.records import EncodedIndex, FailedImage, ShardRecord

__all__ = [
    "EncodeOptions",
    "EncodedDataset",
    "EncodedIndex",
    "EncodedTokens",
    "FailedImage",
    "ShardRecord",
    "encode_dataset",
    "open_encoded",
]

"""Who sees whom."""

from __future__ import annotations

import numpy as np
import pytest
from golden_cases import golden_case
from hypothesis import given, settings
from hypothesis import strategies as st

from pargo_export.errors import ConfigError
from pargo_export.model.masks import additive_mask, cross_attention_keep, self_attention_keep, window_size

reproducible = settings(derandomize=True, deadline=None)
partials = st.integers(1, 24)
globals_ = st.integers(0, 6)
windows = st.integers(1, 9)
odd_windows = st.integers(0, 20).map(lambda half: 2 * half + 1)


def test_golden_masks_bit_by_bit():
    """Both additive masks are the official ones, for every image of the batch, down to the sign of zero."""
    io = golden_case("pargo_w2").io
    own = additive_mask(self_attention_keep(18, 4))
    cross = additive_mask(cross_attention_keep(18, 4, 36))
    assert own.tobytes() == io["self_attention_mask"].numpy().tobytes()
    stored = io["cross_attention_mask"].numpy()
    assert stored.shape == (3, 1, 22, 36)
    for image in stored:
        assert cross.tobytes() == image[0].tobytes()


def test_the_picture_in_the_module_docstring():
    """Three partial tokens, one global token and six image tokens give the drawn masks."""
    cross = cross_attention_keep(3, 1, 6).astype(int)
    assert cross.tolist() == [[1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1], [1, 1, 1, 1, 1, 1]]
    own = self_attention_keep(3, 1).astype(int)
    assert own.tolist() == [[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 1]]


@reproducible
@given(partial=partials, global_=globals_, window=windows)
def test_each_image_token_has_exactly_one_partial_owner(partial, global_, window):
    """Windows share no token and leave none out, and every window has the same size."""
    keep = cross_attention_keep(partial, global_, partial * window)
    assert keep.shape == (partial + global_, partial * window)
    assert keep.dtype == np.bool_
    assert (keep[:partial].sum(axis=0) == 1).all()
    assert (keep[:partial].sum(axis=1) == window).all()
    assert keep[partial:].all()


@reproducible
@given(partial=partials, window=windows)
def test_windows_are_contiguous_and_in_order(partial, window):
    """The owner of an image token never decreases along the row-major order, starting at the first partial token."""
    owner = cross_attention_keep(partial, 0, partial * window).argmax(axis=0)
    assert owner.tolist() == sorted(owner.tolist())
    assert owner[0] == 0
    assert owner[-1] == partial - 1


@reproducible
@given(global_=st.integers(1, 6), tokens=st.integers(1, 50))
def test_without_partial_tokens_everything_is_seen(global_, tokens):
    """A Q-Former has no mask."""
    assert cross_attention_keep(0, global_, tokens).all()
    assert cross_attention_keep(0, global_, tokens).shape == (global_, tokens)
    assert self_attention_keep(0, global_).all()


@reproducible
@given(partial=st.integers(0, 24), global_=globals_, window=st.none() | odd_windows)
def test_self_mask_is_symmetric_and_block_diagonal(partial, global_, window):
    """Everyone sees itself, seeing is mutual, and the two kinds never see each other."""
    keep = self_attention_keep(partial, global_, window)
    assert keep.shape == (partial + global_, partial + global_)
    assert np.array_equal(keep, keep.T)
    assert keep.diagonal().all()
    assert not keep[:partial, partial:].any()
    assert keep[partial:, partial:].all()


@reproducible
@given(partial=partials, global_=globals_, window=odd_windows)
def test_a_cascaded_window_is_centred_and_ends_at_the_borders(partial, global_, window):
    """Partial token i sees the partial tokens from i - window // 2 to i + window // 2 that exist."""
    keep = self_attention_keep(partial, global_, window)
    for row in range(partial):
        first, last = max(0, row - window // 2), min(partial - 1, row + window // 2)
        assert np.flatnonzero(keep[row]).tolist() == list(range(first, last + 1))


@reproducible
@given(partial=partials, global_=globals_)
def test_window_extremes(partial, global_):
    """A window of 1 leaves the token itself, and one of 2P - 1 is no limit."""
    alone = self_attention_keep(partial, global_, 1)[:partial, :partial]
    assert np.array_equal(alone, np.eye(partial, dtype=bool))
    everyone = self_attention_keep(partial, global_, 2 * partial - 1)
    assert np.array_equal(everyone, self_attention_keep(partial, global_))


@reproducible
@given(partial=partials, global_=globals_, window=odd_windows)
def test_wider_windows_only_add(partial, global_, window):
    """What a window shows, every wider window shows."""
    narrow, wide = (self_attention_keep(partial, global_, size) for size in (window, window + 2))
    assert (narrow <= wide).all()


@reproducible
@given(partial=partials, window=windows)
def test_window_size_times_partial_tokens_is_all_tokens(partial, window):
    """W = N / P."""
    assert window_size(partial, partial * window) == window


@pytest.mark.parametrize(("partial", "tokens"), [(5, 36), (37, 36), (7, 1)])
def test_image_tokens_that_cannot_be_divided_are_refused(partial, tokens):
    """The message names both numbers and the mend."""
    pattern = f"{tokens} image tokens .* {partial} partial tokens; use a tile count"
    with pytest.raises(ConfigError, match=pattern):
        window_size(partial, tokens)
    with pytest.raises(ConfigError, match=pattern):
        cross_attention_keep(partial, 2, tokens)


def test_additive_mask_holds_zero_and_minus_infinity():
    """Seen is +0, hidden is -inf, in float32."""
    mask = additive_mask(np.array([[True, False]]))
    assert mask.dtype == np.float32
    assert mask.tolist() == [[0.0, float("-inf")]]
    assert not np.signbit(mask[0, 0])

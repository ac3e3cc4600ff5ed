from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from pargo_export.llm import GREEDY, OFFICIAL
from pargo_export.llm.onnx.search import beam_search, greedy_search

VOCABULARY, WIDTH = 24, 16
END, OTHER_END = 1, 5
SHORT = replace(OFFICIAL, max_new_tokens=12)
SETTINGS = [
    OFFICIAL,
    SHORT,
    replace(SHORT, num_beams=2, length_penalty=0.0),
    replace(SHORT, num_beams=3, length_penalty=2.0, min_new_tokens=4),
    replace(SHORT, num_beams=3, length_penalty=-1.0, min_new_tokens=0),
    replace(SHORT, num_beams=5, repetition_penalty=1.7),
    replace(SHORT, max_new_tokens=1),
    replace(GREEDY, max_new_tokens=20),
    replace(GREEDY, max_new_tokens=20, repetition_penalty=1.7, min_new_tokens=3),
]


class Rereading:
    """A `Decoding` that lets a model of transformers read the whole sequences again at every step, without caches."""

    def __init__(self, model, embeddings, mask):
        self.model, self.embeddings, self.mask = model, embeddings, mask

    def start(self, copies):
        """Read the prompts."""
        self.embeddings = self.embeddings.repeat_interleave(copies, 0)
        self.mask = self.mask.repeat_interleave(copies, 0)
        return self._read()

    def advance(self, tokens, rows):
        """Read one token more."""
        step = self.model.get_input_embeddings()(torch.from_numpy(tokens))[:, None]
        self.embeddings = torch.cat([self.embeddings[rows], step], 1)
        self.mask = torch.cat([self.mask[rows], torch.ones(len(tokens), 1, dtype=torch.int64)], 1)
        return self._read()

    def _read(self):
        positions = (self.mask.cumsum(-1) - 1).clamp(min=0)
        output = self.model(
            inputs_embeds=self.embeddings, attention_mask=self.mask, position_ids=positions, use_cache=False
        )
        return output.logits[:, -1].numpy()


def random_case(seed):
    """Return a random model whose answers end early or late, and three prompts padded on the left."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        initializer_range=0.15 + 0.05 * seed,  # from answers that go on and on to those that are sure
    )
    model = LlamaForCausalLM(config).eval()
    model.generation_config = GenerationConfig()
    embeddings, mask = torch.randn(3, 6, WIDTH), torch.ones(3, 6, dtype=torch.int64)
    for row in (1, 2):
        embeddings[row, : 2 * row], mask[row, : 2 * row] = 0, 0
    return model, embeddings, mask


def generate(model, embeddings, mask, settings, ends):
    """Return the tokens of `generate` of transformers, a list a row."""
    beams = {"length_penalty": settings.length_penalty} if settings.num_beams > 1 else {}
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=settings.max_new_tokens,
        min_new_tokens=settings.min_new_tokens or None,
        num_beams=settings.num_beams,
        repetition_penalty=settings.repetition_penalty,
        eos_token_id=list(ends) or None,
        pad_token_id=0,
        **beams,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # penalties do not see the prompt, which is what is wanted
        return model.generate(
            inputs_embeds=embeddings, attention_mask=mask, generation_config=config
        ).tolist()


def until_end(rows, ends):
    """Return each row up to and with the first token that ends it."""
    found = []
    for row in rows:
        place = next((index for index, token in enumerate(row) if token in ends), len(row))
        found.append(list(row[: place + 1]))
    return found


@pytest.mark.parametrize(
    ("seed", "ends"),
    [(0, (END,)), (0, ()), (1, (END, OTHER_END)), (2, (END,)), (2, (END, OTHER_END)), (3, (END,))],
    ids=str,
)
@torch.inference_mode()
def test_the_search_is_that_of_transformers(seed, ends):
    """Random models give the tokens that `generate` gives, whatever the settings."""
    model, embeddings, mask = random_case(seed)
    lengths = set()
    for settings in SETTINGS:
        # transformers 5.23 takes the padding of a prompt of embeddings for new tokens that repetitions do not count.
        alone = settings.repetition_penalty != 1
        expected = []
        for rows in ([0], [1], [2]) if alone else ([0, 1, 2],):
            begin = 2 * rows[0] if alone else 0
            expected += generate(model, embeddings[rows, begin:], mask[rows, begin:], settings, ends)
        decoding = Rereading(model, embeddings, mask)
        if settings.num_beams > 1:
            found = beam_search(decoding, settings, ends)
        else:
            found = np.stack(list(greedy_search(decoding, settings, ends)), axis=1)
        answers = until_end(found.tolist(), ends)
        assert answers == until_end(expected, ends), settings
        lengths |= {len(answer) for answer in answers}
    assert len(lengths) >= (4 if ends else 3)  # answers end at different places


def test_of_equal_scores_the_first_is_taken():
    """A model that knows nothing answers with the first tokens."""

    class Knowing:
        def start(self, copies):
            return np.zeros((copies, 8), np.float32)

        def advance(self, tokens, _):
            return np.zeros((len(tokens), 8), np.float32)

    settings = replace(SHORT, max_new_tokens=3, num_beams=2)
    assert beam_search(Knowing(), settings, ()).tolist() == [[0, 0, 0]]
    greedy = replace(settings, num_beams=1)
    assert [tokens.tolist() for tokens in greedy_search(Knowing(), greedy, ())] == [[0], [0], [0]]

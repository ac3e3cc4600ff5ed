"""Training of the sample: packing is exact, every projector learns, an interruption changes no bit."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from card import write_card
from curriculum import Curriculum
from exporting import save_sample
from fused_attention import fuse_attention
from one_run import run_once
from packing import PackedModel, pack
from preparation import Preparation, prepare
from projectors import PROJECTORS, make_projector, model_config
from question_reading import holds
from scenes import TASKS
from small_llm import make_language_model
from stages import Plan, answer_accuracy, run_stages
from study_summary import interval, summarise
from texts import Texts, prefix_tokens, prompt_tokens
from tower_training import VISION, normalised, train_tower
from training import Log, Schedule, Stage, run_stage
from word_loss import WordLoss, caption_words

from pargo_export import load_checkpoint
from pargo_export.evaluation.mme.scoring import NUM_CHARACTERS
from pargo_export.llm import CHAT_TEMPLATE, MME_TEMPLATE, open_language_model, splice

TINY = VISION.model_copy(update={"width": 16, "num_layers": 1, "head_width": 8, "hidden_width": 21})
LLM = {"width": 32, "num_layers": 1, "intermediate": 40}
SCHEDULE = Schedule(steps=4, learning_rate=3e-3, warmup=1, save_every=2, log_every=2)
PLAN = Plan(SCHEDULE, SCHEDULE, steps_per_thing=1, batch=2, questions_per_image=2, text_length=40)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Return data, tokenizer and tower of a tiny size."""
    torch.set_num_threads(1)
    directory = tmp_path_factory.mktemp("work")
    sizes = Preparation(0, 28, 7, 1, replace(SCHEDULE, steps=6), tower_batch=4)
    return prepare(directory, sizes, TINY, Log(directory / "log.jsonl"), processes=1, resume=False)


def packed_model(prepared, kind="pargo"):
    """Return a projector and a language model of a tiny size."""
    config = model_config(kind, TINY, LLM["width"])
    language_model = make_language_model(prepared.tokenizer, seed=1, **LLM)
    model = PackedModel(make_projector(config, seed=1), language_model, prefix_tokens(prepared.tokenizer))
    fuse_attention(model, config.num_image_tokens)
    return config, model


def test_tokenizer_keeps_every_text(prepared):
    """All texts come back as they were, strange ones too, and special tokens stand for nothing else."""
    tokenizer = prepared.tokenizer
    texts = [*prepared.train.corpus.texts(), MME_TEMPLATE, CHAT_TEMPLATE, "Ünïcode \t\n 漢字 \x00"]
    for text in texts:
        tokens = tokenizer.encode(text, add_special_tokens=False)
        assert tokenizer.decode(tokens) == text
        assert not {tokenizer.bos_token_id, tokenizer.eos_token_id} & set(tokens)
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<s>", "</s>")
    digits = tokenizer.encode("1998", add_special_tokens=False)
    assert len(digits) == 4


def test_packed_texts_are_as_if_alone(prepared, tmp_path):
    """A text in a pack gets the logits that the official splice gives it alone, to float32 rounding."""
    config, model = packed_model(prepared)
    model.eval()
    asked = ["Is there a star in this image? Please answer yes or no.", "Is it 7?"]
    prompts = [prompt_tokens(prepared.tokenizer, MME_TEMPLATE, question) for question in asked]
    image_features = prepared.train.image_features([4])
    texts = [[(prompt, [5], 0.0) for prompt in prompts]]
    packed = pack(texts, None, prepared.tokenizer.pad_token_id)
    with torch.no_grad():
        found, _ = model.logits(image_features, packed)
        visual = model.projector(image_features)[1]
    save_sample(tmp_path, config, prepared.tower, model, prepared.tokenizer)
    with open_language_model(tmp_path / "llm") as language_model:
        filled = [MME_TEMPLATE.replace("{}", question) for question in asked]
        sequences, mask = splice(language_model, visual.repeat(2, 1, 1).numpy(), filled)
    embed = model.language_model.get_input_embeddings()
    for row, scores in enumerate(found):
        with torch.no_grad():
            alone = torch.cat([embed(model.prefix), visual[0], embed(torch.tensor(prompts[row]))])[None]
            expected = model.language_model(inputs_embeds=alone).logits[0, -1]
        # The weights on disk are in half precision.
        assert torch.allclose(torch.from_numpy(sequences[row, mask[row] == 1]), alone[0], atol=1e-3)
        assert torch.allclose(scores, expected, atol=1e-5)
    assert not torch.allclose(found[0], found[1], atol=2e-2)


def test_answers_alone_are_targets():
    """The tokens of the answer are predicted, each from the one before it; prompt and padding are not."""
    rows = [[([7, 8, 9], [4, 1], 0.0), ([7], [5, 1], 0.0)], [([7, 8], [4, 1], 0.0), ([7, 9], [5, 1], 0.0)]]
    packed = pack(rows, None, 0)
    assert packed.lengths == (4, 3)
    assert packed.tokens.tolist() == [[7, 8, 9, 4, 7, 5, 1], [7, 8, 4, 1, 7, 9, 5]]
    assert packed.targets.tolist() == [[-100, -100, 4, 1, 5, 1, -100], [-100, 4, 1, -100, -100, 5, 1]]
    cut = pack([[([7, 8], [4, 5, 6, 1], 0.0)]], 4, 0)
    assert cut.targets.tolist() == [[-100, 4, 5, 6]]
    weighted = pack([[([7, 8, 9], [4, 1], 0.25)]], None, 0)
    assert weighted.targets.tolist() == [[8, 9, 4, 1]]
    assert weighted.weights[0].tolist() == [0.25, 0.25, 1, 1]


def test_questions_of_a_step(prepared):
    """Questions come in pairs, a Yes and a No, each answered by what is seen; a step's generator decides which."""
    texts, corpus = Texts(prepared.tokenizer), prepared.train.corpus
    for index in range(len(corpus)):
        asked = [
            texts.questions(np.random.default_rng(5), corpus.scenes[index], corpus.task(index), 6)
            for _ in range(2)
        ]
        assert asked[0] == asked[1]
        answers = [prepared.tokenizer.decode(answer) for _, answer, _ in asked[0]]
        for number, (prompt, _, _) in enumerate(asked[0]):
            text = prepared.tokenizer.decode(prompt).removeprefix("</Img> ").partition("\n")[0]
            assert holds(corpus.scenes[index], text) == (number % 2 == 0)
        assert all(answer.endswith(", yes</s>") for answer in answers[::2])
        assert all(answer.endswith(", no</s>") for answer in answers[1::2])
        assert max(len(answer.removesuffix("</s>").strip()) for answer in answers) <= NUM_CHARACTERS


def test_curriculum_starts_with_one_thing(prepared):
    """Images with k things come in after k - 1 times so many steps, and at the end all images."""
    scenes = prepared.train.corpus.scenes
    curriculum = Curriculum(scenes, steps_per_thing=10)
    for step in (0, 9, 10, 25, 1000):
        seen = {len(scenes[index].things) for index in curriculum.choose(np.random.default_rng(1), step, 300)}
        most = 1 + step // 10
        assert seen == {len(scene.things) for scene in scenes if len(scene.things) <= most}
    everything = Curriculum(scenes, 0).choose(np.random.default_rng(1), 0, 500)
    assert len(set(everything.tolist())) == len(scenes)


def test_word_loss_reads_words_wherever_they_are():
    """A token like a word's embedding says that the word is there; a missing one costs, and its place does not matter."""
    words = caption_words([[1, 2, 9], [1, 3, 9], [1, 4, 9], [2, 3, 9]])
    assert words.tolist() == [2, 3, 4]  # 1 and 9 are in more than seven of ten
    embeddings, loss = torch.eye(10), WordLoss(words).requires_grad_(requires_grad=False)
    targets = loss.targets([[1, 2, 3, 9]])
    assert targets.tolist() == [[1, 1, 0]]
    right, half = embeddings[[2, 3, 0, 0]][None], embeddings[[2, 0, 0, 0]][None]
    assert float(loss(right, embeddings, targets)) < float(loss(half, embeddings, targets))
    moved = loss(right.flip(1), embeddings, targets)
    assert torch.allclose(moved, loss(right, embeddings, targets))


def test_answer_accuracy_asks_for_the_whole_answer(prepared):
    """An answer counts if every token of it is the likeliest: with the targets' own scores all are right."""
    texts = Texts(prepared.tokenizer)

    class Knowing:
        """Gives the targets, but for the last token of each answer if told so."""

        def __init__(self, *, wrong_end: bool) -> None:
            self.wrong_end = wrong_end

        def logits(self, _features, packed):
            targets = packed.targets[packed.targets != -100]
            scores = torch.nn.functional.one_hot(targets, len(prepared.tokenizer)).float()
            if self.wrong_end:
                scores[targets == prepared.tokenizer.eos_token_id] = 0
            return scores, targets

    for wrong_end, expected in ((False, 1.0), (True, 0.0)):
        found = answer_accuracy(Knowing(wrong_end=wrong_end), texts, 0, prepared.held_out)
        assert set(found.values()) == {expected}


@pytest.mark.parametrize("kind", PROJECTORS)
def test_every_projector_trains(prepared, kind, tmp_path):
    """Two tiny stages lower the loss, and what is written is a checkpoint of that projector."""
    config, model = packed_model(prepared, kind)
    plan = replace(
        PLAN, captions=replace(SCHEDULE, steps=10, decay=0.0), questions=replace(SCHEDULE, steps=1)
    )
    texts = Texts(prepared.tokenizer)
    described = pack([texts.captions(prepared.train.corpus.captions[3])], None, 0)

    def language_loss() -> float:
        with torch.no_grad():
            return float(model(prepared.train.image_features([3]), described)[1])

    before = language_loss()
    log = Log(tmp_path / "log.jsonl")
    run_stages(model, prepared.tokenizer, prepared.train, prepared.held_out, plan, tmp_path, log, seed=0)
    assert language_loss() < before - 0.2
    save_sample(tmp_path, config, prepared.tower, model, prepared.tokenizer)
    written = load_checkpoint(tmp_path / "model.safetensors").config
    assert written.projector.kind == kind
    assert written.num_visual_tokens == (40 if kind in {"pargo", "qformer"} else 36)


def test_run_is_scored_and_described(prepared, tmp_path):
    """A whole run writes the scores of every task, and a card that tells them."""
    result = run_once(tmp_path, prepared, TINY, "pargo", PLAN, seed=0, resume=False)
    assert set(result["tasks"]) == {*TASKS, "total"}
    assert json.loads((tmp_path / "result.json").read_text()) == result
    card = write_card(tmp_path, result, prepared.seconds).read_text()
    for task in TASKS:
        assert f"| {task} | {result['tasks'][task]['score']:.1f} |" in card
    parameters = sum(result[f"{part}_parameters"] for part in ("tower", "projector", "language_model"))
    assert f"{parameters / 1e6:.1f} million" in card


def test_export_is_what_was_trained(prepared, tmp_path):
    """The written front-end gives the visual tokens that were trained on, to float16 rounding."""
    config, model = packed_model(prepared)
    save_sample(tmp_path, config, prepared.tower, model, prepared.tokenizer)
    found = load_checkpoint(tmp_path / "model.safetensors").encode_images(
        normalised(prepared.train.corpus.pixels[:2])
    )
    with torch.no_grad():
        expected = model.projector(prepared.train.image_features([0, 1]))[1]
    assert found.shape == (2, 40, LLM["width"])
    assert float((found - expected).abs().max()) < 5e-3
    assert float(expected.std()) > 0.05


def toy(seed):
    """Return a stage whose loss depends on the step alone."""
    torch.manual_seed(seed)
    model = torch.nn.Linear(3, 1)

    def loss(step):
        rng = np.random.default_rng([seed, step])
        return model(torch.from_numpy(rng.normal(size=(4, 3)).astype(np.float32))).square().mean()

    return Stage("toy", model, loss, replace(SCHEDULE, steps=9))


def test_resumed_stage_is_bit_exact(tmp_path):
    """A stage that is interrupted between checkpoints and resumed ends with the same bits."""
    whole, halves = toy(1), toy(1)
    run_stage(whole, tmp_path / "whole", Log(tmp_path / "a.jsonl"), resume=False)
    assert run_stage(halves, tmp_path / "halves", Log(tmp_path / "b.jsonl"), resume=False, stop_after=5) == 5
    again = toy(1)
    assert run_stage(again, tmp_path / "halves", Log(tmp_path / "b.jsonl"), resume=True) == 9
    assert torch.equal(again.model.weight, whole.model.weight)
    assert not torch.equal(again.model.weight, halves.model.weight)


@pytest.mark.parametrize("stop_after", [3, 6], ids=["in stage 1", "in stage 2"])
def test_resumed_run_is_bit_exact(prepared, tmp_path, stop_after):
    """A whole run, tower, projector and language model, that is interrupted in either stage ends with the same bits."""
    towers, models = [], []
    for name, stops in (("whole", [None]), ("parts", [stop_after, None])):
        log = Log(tmp_path / name / "log.jsonl")
        for attempt, stop in enumerate(stops):
            tower = train_tower(
                tmp_path / name,
                prepared.train.corpus,
                prepared.held_out.corpus,
                log,
                seed=2,
                schedule=SCHEDULE,
                batch=2,
                config=TINY,
                resume=bool(attempt),
                stop_after=stop,
            )
            _, model = packed_model(prepared)
            run_stages(
                model,
                prepared.tokenizer,
                prepared.train,
                prepared.held_out,
                PLAN,
                tmp_path / name,
                log,
                seed=2,
                resume=bool(attempt),
                stop_after=stop,
            )
        towers.append(tower.state_dict())
        models.append(model.state_dict())
    for one, other in (towers, models):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_learning_rate_rises_and_falls():
    """Linear increase, the full rate, linear decrease to nothing; without a decay it stays."""
    schedule = Schedule(steps=100, learning_rate=1.0, warmup=10, decay=0.3)
    rates = [schedule.rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9:70] == pytest.approx([1.0] * 61)
    assert rates[-1] == pytest.approx(1 / 30)
    assert all(earlier > later for earlier, later in pairwise(rates[70:]))
    assert replace(schedule, decay=0.0).rate(99) == 1.0


def test_summary_of_a_study():
    """Means, Student intervals and differences at equal seeds; a seed that one side lacks is left out."""
    runs = [("pargo", 0, 110), ("pargo", 1, 120), ("pargo", 2, 130), ("qformer", 0, 100), ("qformer", 1, 104)]
    results = [
        {"projector": kind, "seed": seed, "tasks": {"count": {"score": score}, "total": {"score": score}}}
        for kind, seed, score in runs
    ]
    summary = summarise(results)
    ours = summary["scores"]["pargo"]["count"]
    assert ours["mean"] == 120
    assert ours["high"] - ours["mean"] == pytest.approx(4.302653 * 10 / 3**0.5, rel=1e-6)
    difference = summary["differences"]["qformer"]["total"]
    assert difference["values"] == [10, 16]
    assert difference["mean"] == 13
    assert interval([5.0])["low"] is None

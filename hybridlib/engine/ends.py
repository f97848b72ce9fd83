"""Which tokens end an answer? All that the model declares, and that its chat template writes.

A model says so in four places, which often differ: the tokenizer's `eos_token`, `eos_token_id` of
generation_config.json (a number or a list) and of config.json, and the chat template, which ends an
assistant's turn. The bases of Qwen2.5 declare <|endoftext|> alone, and what is trained on their
template ends in <|im_end|>: sampled to the first alone, a right answer is followed by noise.
"""

from typing import TYPE_CHECKING, Any

from hybridlib import StudyError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ANSWER = "Answer0"
TURNS = [{"role": "user", "content": "Question"}, {"role": "assistant", "content": ANSWER}]


def end_tokens(model: Any, tokenizer: "PreTrainedTokenizerBase") -> tuple[int, ...]:
    """Return the ids of all tokens that end an answer; first the one that SFT teaches.

    That is the end of an assistant's turn in the chat template, where it has one, else the
    tokenizer's end, else what the configurations of the model declare.

    Args:
        model: anything with a `config` and, if it has one, a `generation_config`.
    Raises:
        StudyError: there is none, or no chat template.
    """
    config = model.config
    declared = [
        tokenizer.eos_token_id,
        getattr(getattr(model, "generation_config", None), "eos_token_id", None),
        getattr(config, "eos_token_id", None),
        getattr(config.get_text_config(), "eos_token_id", None),
    ]
    ends = _turn_ends(tokenizer, ANSWER)[:1]
    for ids in declared:
        ends += ids if isinstance(ids, list | tuple) else [ids]
    unique = tuple(dict.fromkeys(token for token in ends if token is not None))
    if not unique:
        raise StudyError(
            f"{tokenizer.name_or_path} has no end token: neither its tokenizer, generation_config "
            "or config declares one, nor does its chat template end a turn with one; set eos_token "
            "in tokenizer_config.json"
        )
    return unique


def declare(model: Any, tokenizer: "PreTrainedTokenizerBase") -> tuple[int, ...]:
    """Write the end tokens of a model where transformers, TRL and PEFT look for them; return them.

    Those that the tokenizer has added to its vocabulary without calling them special become
    special, so that they are no part of the text of an answer.

    Raises StudyError as `end_tokens` does.
    """
    ends = end_tokens(model, tokenizer)
    model.generation_config.eos_token_id = list(ends) if len(ends) > 1 else ends[0]
    if tokenizer.eos_token_id is None:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(ends[0])
    added = tokenizer.added_tokens_decoder
    plain = [added[token].content for token in ends if token in added and not added[token].special]
    if plain:
        tokenizer.add_special_tokens(
            {"extra_special_tokens": plain}, replace_extra_special_tokens=False
        )
    return ends


def closing(tokenizer: "PreTrainedTokenizerBase", ends: tuple[int, ...]) -> str:
    """Return what has to follow an answer for its turn to end in one of these tokens.

    "" where the chat template writes one. Else the text of the first.

    Raises:
        StudyError: the template drops it.
    """
    if set(_turn_ends(tokenizer, ANSWER)) & {*ends}:
        return ""
    text = tokenizer.decode([ends[0]])
    if ends[0] not in _turn_ends(tokenizer, ANSWER + text):
        raise StudyError(
            f"the chat template of {tokenizer.name_or_path} ends no turn and drops {text!r} behind "
            "an answer: no answer could learn to end"
        )
    return text


def _turn_ends(tokenizer: "PreTrainedTokenizerBase", answer: str) -> list[int]:
    """Return the special tokens behind ANSWER in the chat template, in order."""
    if not tokenizer.chat_template:
        raise StudyError(
            f"{tokenizer.name_or_path} has no chat template; add chat_template.jinja to the folder"
        )
    turns = [TURNS[0], TURNS[1] | {"content": answer}]
    text = tokenizer.apply_chat_template(turns, tokenize=False)
    behind = text.rpartition(ANSWER)[2]
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    ids = tokenizer(behind, add_special_tokens=False)["input_ids"]
    return [token for token in ids if token in special]

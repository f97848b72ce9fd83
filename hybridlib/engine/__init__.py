"""How does the study sample and train fast? Llama-style models on distinct tokens, under TRL.

Public are `decoder.Decoder`, `PrefixBatch`, `log_probs`, `score_completions` and `unsupported`, the
forward pass; `ends.end_tokens`, `declare` and `closing`, which tokens end an answer;
`rollout.encode`, `sample` and `sample_ids`; `trainers.grpo` and `sft`, TRL's trainers with that
pass, `trainers.can_replace_pass` and `prefix_batch` for trainers with a loss of their own;
`critics.LogRatio` and `encoder`, the models that rewards ask.
The cache of `rollout`, the layers of `decoder`, its `gradients` and names with an underscore stay
inside, and a model goes into `Decoder` only where `unsupported` has nothing against it.
It is our own code because TRL and transformers pad each batch to its longest row and read a prompt
again for each of its samples: without both, GRPO steps and evaluations take a fifth of the time
(measured in `book/engine.md`), and losses and gradients equal TRL's within rounding.
"""

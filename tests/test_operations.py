import pytest

from hybridlib.engine import operations


@pytest.fixture
def adapted(tiny, small, world):
    from hybridlib import models

    return models.load(small, "lora", 8)


def sizes(model):
    """Weights of the layers' matrices, of the head, and trained parameters, from the config."""
    config = model.config
    width, wide = config.hidden_size, config.intermediate_size
    keys = width * config.num_key_value_heads // config.num_attention_heads
    layer = width * (width + 2 * keys) + width * width + 3 * width * wide
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return layer * config.num_hidden_layers, config.vocab_size * width, trained


def test_a_pass_of_the_decoder_counts_each_distinct_token_once(adapted):
    import torch

    from hybridlib.engine import decoder

    model, _ = adapted
    body, head, trained = sizes(model)
    batch = decoder.PrefixBatch([[5, 6, 7]], [[[8, 9], [10, 11, 12]]])  # 3 + 1 + 2 are read
    with operations.counting(model) as meter:
        with torch.no_grad():
            decoder.log_probs(decoder.Decoder(model), batch)
        assert meter.operations(trained) == 2 * (6 * body + 5 * head)
        decoder.log_probs(decoder.Decoder(model), batch)
    assert meter.operations(trained) == 6 * (6 * body + 5 * head) + 6 * trained * 6


def test_the_models_own_pass_counts_padding_and_scores_every_token(adapted):
    import torch

    model, _ = adapted
    body, head, trained = sizes(model)
    ids, mask = torch.tensor([[1, 1, 5], [6, 7, 8]]), torch.tensor([[0, 0, 1], [1, 1, 1]])
    with operations.counting(model) as meter:
        model(input_ids=ids, attention_mask=mask)
    assert meter.operations(trained) == 4 * 6 * (body + head) + 6 * trained * 6
    model(input_ids=ids, attention_mask=mask)
    assert meter.operations(trained) == 4 * 6 * (body + head) + 6 * trained * 6


def test_four_bit_matrices_count_as_the_matrices_that_they_stand_for(small, world):
    from hybridlib import models

    plain, quantised = (models.load(small, "lora", 8, nf4=nf4)[0] for nf4 in (False, True))
    body = sizes(plain)[0]
    assert operations.matrix_sizes(plain.get_base_model().get_decoder()) == body
    assert operations.matrix_sizes(quantised.get_base_model().get_decoder()) == body


def test_what_is_not_training_stays_out(adapted):
    import torch

    model, _ = adapted
    with operations.counting(model) as meter, operations.uncounted():
        model(input_ids=torch.tensor([[5]]))
    assert meter == operations.Meter()


def test_sampling_counts_the_prompt_once_and_every_sampled_token(adapted):
    from hybridlib.engine import rollout

    model, _ = adapted
    body, head, _ = sizes(model)
    with operations.counting(model) as meter:
        rollout.sample_ids(model, [[5, 6, 7]], 4, 3, ends=[-1])  # the third token is not read
    assert meter.operations(0) == 2 * (3 * body + head) + 2 * 2 * 4 * (body + head)

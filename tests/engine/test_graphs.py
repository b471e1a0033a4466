"""Steps by CUDA graphs on a pretended GPU: the same bits as without, and a training that goes on where they fail."""

import contextlib
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from tests.pretended_gpu import pretended_gpu
from tests.tiny import toy_texts, word_tokenizer
from tests.training import adapted_model, toy_table
from tuneoff.data.spec import TruncationPolicy
from tuneoff.data.tokens import tokenize_split
from tuneoff.engine import graphs as graphs_module
from tuneoff.engine import inputs as engine_inputs
from tuneoff.engine import loop
from tuneoff.engine.graphs import StepGraphs
from tuneoff.engine.inputs import SplitInputs, cached_prefix_inputs, predict_logits
from tuneoff.engine.loop import TrainingSettings, Validation, train
from tuneoff.engine.loss import Loss
from tuneoff.engine.recipe import Recipe
from tuneoff.engine.resume import Checkpoint

MODELS = ["bert", "distilbert", "modernbert"]
STRATEGIES = ["head", "partial:layers=1", "bitfit", "lora:dropout=0.1", "adapter:reduction=2", "full", "peft:type=dora"]


def trained_with(
    strategy,
    model_type,
    monkeypatch,
    use="on",
    dtype=torch.bfloat16,
    capability=(8, 0),
    prefix=None,
    table=None,
    **recipe,
):
    """Train with dropout on a pretended GPU. Returns the history, the weights and how many steps a graph computed."""
    monkeypatch.setenv("TUNEOFF_CUDA_GRAPHS", use)
    monkeypatch.setattr(graphs_module, "_failure", "")
    adapted = adapted_model(strategy, model_type, num_labels=2, vocab_size=24)
    inputs = SplitInputs(table or toy_table(120))
    if prefix is not None:
        inputs = cached_prefix_inputs(adapted.model, inputs.table, prefix, f"graphs-{strategy}", dtype)
    with pretended_gpu(capability) as gpu:
        adapted.model.to("cuda")
        settings = TrainingSettings(Recipe(**{"epochs": 3, "batch_size": 8, **recipe}), 1e-3, 0, dtype)
        validation = None
        if "evaluate_every" in recipe:
            validation = Validation(
                lambda: {"accuracy": float(predict_logits(adapted.model, inputs).mean())}, "accuracy"
            )
        trained = train(adapted, inputs, settings, validation)
        assert not gpu.mistakes
        assert gpu.stream == "default"
        return trained, list(adapted.model.parameters()), gpu.replays


def check(strategy, model_type, monkeypatch, least=10, **options):
    expected, weights, none = trained_with(strategy, model_type, monkeypatch, "off", **options)
    trained, ours, replays = trained_with(strategy, model_type, monkeypatch, **options)
    assert trained.graph_error == ""
    assert none == 0
    assert replays >= least
    assert trained.steps == expected.steps
    assert trained.evaluations == expected.evaluations
    assert all(map(torch.equal, ours, weights))


@pytest.mark.slow
@pytest.mark.parametrize("model_type", MODELS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_steps_by_graphs_have_the_bits_of_steps_without(strategy, model_type, monkeypatch):
    if (strategy, model_type) == ("bitfit", "modernbert"):
        pytest.skip("has no biases")
    check(strategy, model_type, monkeypatch)


def test_the_weight_of_a_batch_is_read_by_its_graph(monkeypatch):
    table = toy_table(120)
    rare = replace(table, labels=(np.arange(120) % 5 == 0).astype(table.labels.dtype))
    check("full", "bert", monkeypatch, table=rare, class_weights="balanced")


@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        ("full", {"loss": "focal"}),
        ("full", {"dtype": torch.float16, "capability": (8, 0)}),  # with a scale of the loss
        ("partial:layers=1", {"prefix": 1}),
        ("head", {"prefix": 2}),
    ],
)
def test_what_varies_between_steps_is_read_by_their_graph(strategy, options, monkeypatch):
    check(strategy, "bert", monkeypatch, **options)


def test_validations_between_steps_change_no_graph(monkeypatch):
    check("full", "bert", monkeypatch, evaluate_every=4)


def test_states_that_are_copied_in_each_step_are_read_by_its_graph(monkeypatch):
    monkeypatch.setattr(engine_inputs, "_GPU_SHARE_FOR_STATES", 0.0)
    check("partial:layers=1", "bert", monkeypatch, prefix=1)


def test_long_texts_in_windows_have_graphs(monkeypatch):
    texts, labels = toy_texts(120, np.random.default_rng(0))
    data = pa.table({"text": texts, "label": labels})
    table = tokenize_split(data, word_tokenizer(), TruncationPolicy(6, "windows"))
    assert table.windows is not None
    assert max(table.counts) > 1
    check("full", "bert", monkeypatch, table=table, least=1)


@pytest.mark.parametrize(
    ("model_type", "options"),
    [
        ("bert", {"dtype": torch.float32}),  # dropout in attention by grids
        ("mpnet", {}),
        ("bert", {"accumulation": 2}),
        ("bert", {"checkpointing": True}),
    ],
)
def test_steps_whose_shapes_follow_lengths_or_that_are_in_parts_have_none(model_type, options, monkeypatch):
    trained, _, replays = trained_with("full", model_type, monkeypatch, **options)
    assert (trained.graph_error, replays) == ("", 0)
    assert all(np.isfinite(step["loss"]) for step in trained.steps)


def test_a_step_that_cannot_be_recorded_is_made_without(monkeypatch):
    expected, weights, _ = trained_with("full", "bert", monkeypatch, "off")
    summed = Loss.summed

    def waiting(self, logits, labels):
        loss = summed(self, logits, labels)
        loss.item()
        return loss

    monkeypatch.setattr(Loss, "summed", waiting)
    trained, ours, replays = trained_with("full", "bert", monkeypatch)
    assert "not permitted when stream is capturing" in trained.graph_error
    assert replays == 0
    assert trained.steps == expected.steps
    assert all(map(torch.equal, ours, weights))


def test_a_graph_that_keeps_a_number_of_the_processor_is_found_on_its_second_batch(monkeypatch):
    """The weight of a loss as a number, the same in the recording and in the step that was recorded."""
    monkeypatch.setattr(graphs_module._Graph, "replay", without_weight(graphs_module._Graph.replay))
    table = toy_table(120)
    rare = replace(table, labels=(np.arange(120) % 5 == 0).astype(table.labels.dtype))
    trained, _, replays = trained_with("full", "bert", monkeypatch, table=rare, class_weights="balanced")
    assert "other gradients" in trained.graph_error
    assert replays > 1  # the comparison with the step that was recorded has passed


def without_weight(replay):
    """A replay that keeps the weight of the loss."""

    def replayed(self, batch, states, weight):
        return replay(self, batch, states, self.weight)

    return replayed


def test_a_lack_of_memory_for_a_graph_ends_graphs_alone(monkeypatch):
    expected, weights, _ = trained_with("full", "bert", monkeypatch, "off")

    def lacking(self, *_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(StepGraphs, "_record", lacking)
    trained, ours, replays = trained_with("full", "bert", monkeypatch)
    assert "out of memory" in trained.graph_error
    assert (replays, trained.halvings) == (0, 0)
    assert trained.steps == expected.steps
    assert all(map(torch.equal, ours, weights))


def test_there_are_as_many_graphs_as_are_allowed(monkeypatch):
    recorded, record = [], StepGraphs._record

    def counted(self, *step):
        recorded.append(1)
        return record(self, *step)

    monkeypatch.setattr(StepGraphs, "_record", counted)
    check("full", "bert", monkeypatch)
    assert len(recorded) == 2
    recorded.clear()
    monkeypatch.setattr(graphs_module, "_MOST_GRAPHS", 1)
    check("full", "bert", monkeypatch, least=5)
    assert len(recorded) == 1


def test_batches_that_fill_their_bucket_have_the_same_dropout(monkeypatch):
    """Eight texts of eight tokens are 64."""
    texts = [f"{' '.join([word] * 6)}" for word in ("good", "bad") * 40]
    data = pa.table({"text": texts, "label": [0, 1] * 40})
    table = tokenize_split(data, word_tokenizer(), 32)
    assert set(table.lengths) == {8}
    check("full", "bert", monkeypatch, table=table)


def test_a_lack_of_memory_beside_graphs_ends_these_before_it_divides_the_batch(monkeypatch):
    expected, weights, _ = trained_with("full", "bert", monkeypatch, "off")
    compute = loop._compute
    failed: list[int] = []

    def lacking(model, inputs, loss, scale, trained, batch, *rest):
        if len(trained.steps) >= 20 and not failed:  # a step of the shape that has no graph
            failed.append(1)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return compute(model, inputs, loss, scale, trained, batch, *rest)

    monkeypatch.setattr(loop, "_compute", lacking)
    monkeypatch.setattr(graphs_module, "_MOST_GRAPHS", 1)
    trained, ours, replays = trained_with("full", "bert", monkeypatch)
    assert (len(failed), trained.halvings, trained.graph_error) == (1, 0, "out of memory with graphs")
    assert replays > 0
    assert trained.steps == expected.steps
    assert all(map(torch.equal, ours, weights))


def test_a_training_with_graphs_goes_on_with_the_same_bits(tmp_path, monkeypatch):
    """A process that goes on makes the first steps of each shape without a graph."""
    monkeypatch.setenv("TUNEOFF_CUDA_GRAPHS", "on")
    settings = TrainingSettings(Recipe(epochs=3, batch_size=8), 1e-3, 0, torch.bfloat16)

    def weights_of(checkpoint=None, until=2.0):
        adapted = adapted_model("full", "bert", num_labels=2, vocab_size=24)
        adapted.model.to("cuda")

        def kill(share):
            if share >= until:
                raise KeyboardInterrupt

        with contextlib.suppress(KeyboardInterrupt):
            train(adapted, SplitInputs(toy_table(120)), settings, None, kill, checkpoint)
        return list(adapted.model.parameters())

    with pretended_gpu() as gpu:
        whole = weights_of()
        weights_of(Checkpoint(tmp_path / "run.safetensors", seconds=0.0), until=0.7)
        assert gpu.replays > 20
        resumed = weights_of(Checkpoint(tmp_path / "run.safetensors", seconds=0.0))
        assert all(map(torch.equal, resumed, whole))

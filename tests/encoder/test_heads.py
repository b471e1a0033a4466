"""A checkpoint's own head: rows follow the names of the labels, and a head for other labels is drawn anew."""

import pytest
import torch

from tests.studies import changed, toy_spec
from tests.tiny import WORDS, tiny_model, word_tokenizer
from tuneoff.cli.opening import opening
from tuneoff.encoder.anatomy import ARCHITECTURES, output_layer
from tuneoff.encoder.config import load_config, model_fingerprint
from tuneoff.encoder.heads import head_labels, head_rows, replaced_head, start_fingerprint
from tuneoff.encoder.load import load_model
from tuneoff.plan import Plan
from tuneoff.study import Study


def save_classifier(folder, labels, model_type="bert"):
    """Save a tiny classifier of some labels, and return its folder and its output layer's weights."""
    changes = {"vocab_size": len(WORDS) + 5} if model_type == "bert" else {}
    model = tiny_model(model_type, num_labels=len(labels), **changes)
    model.set_attn_implementation("eager")
    model.config.id2label = dict(enumerate(labels))
    model.config.label2id = {label: index for index, label in enumerate(labels)}
    model.save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return str(folder), output_layer(model)


@pytest.mark.parametrize("model_type", list(ARCHITECTURES))
def test_rows_follow_the_names_of_the_labels(model_type, tmp_path):
    name, stored = save_classifier(tmp_path / "model", ["Neutral", "BAD", "good"], model_type)
    loaded = output_layer(load_model(name, ("bad", "good", "neutral"), seed=0))
    assert torch.equal(loaded.weight, stored.weight[[1, 2, 0]])
    assert torch.equal(loaded.bias, stored.bias[[1, 2, 0]])


def test_the_same_order_is_kept_as_it_is(tmp_path):
    name, stored = save_classifier(tmp_path / "model", ["bad", "good"])
    assert torch.equal(load_model(name, ("bad", "good"), seed=0).classifier.weight, stored.weight)
    assert start_fingerprint(name, ("bad", "good")) == model_fingerprint(name)


@pytest.mark.parametrize(
    "labels", [["LABEL_0", "LABEL_1"], ["sports", "politics"], ["bad", "worse"], ["good", "GOOD"], ["a", "b", "c"]]
)
def test_a_head_for_other_labels_is_drawn_as_if_it_were_missing(labels, tmp_path):
    name, stored = save_classifier(tmp_path / "model", labels)
    model = tiny_model("bert", num_labels=len(labels), vocab_size=len(WORDS) + 5)
    model.base_model.save_pretrained(tmp_path / "base")
    word_tokenizer().save_pretrained(tmp_path / "base")
    first, second = (load_model(name, ("bad", "good"), seed=seed) for seed in (3, 4))
    without = load_model(str(tmp_path / "base"), ("bad", "good"), seed=3)
    assert torch.equal(first.classifier.weight, without.classifier.weight)
    assert torch.equal(first.classifier.bias, torch.zeros(2))
    assert not torch.equal(first.classifier.weight, second.classifier.weight)
    assert torch.equal(first.bert.pooler.dense.weight, without.bert.pooler.dense.weight)  # the checkpoint's
    assert len(labels) != 2 or not torch.equal(first.classifier.weight, stored.weight)


def test_the_fingerprint_changes_where_rows_were_moved_or_replaced(tmp_path, encoder):
    name, _ = save_classifier(tmp_path / "model", ["bad", "good"])
    prints = [start_fingerprint(name, labels) for labels in (("bad", "good"), ("good", "bad"), ("x", "y"))]
    assert len(set(prints)) == 3
    # as in earlier versions: a head for another number of classes was drawn anew, and so was a missing one
    assert start_fingerprint(name, ("a", "b", "c")) == model_fingerprint(name)
    assert start_fingerprint(encoder, ("x", "y")) == model_fingerprint(encoder)


def test_a_checkpoint_without_a_head_has_no_labels(encoder):
    assert head_labels(encoder) is None
    assert head_labels("packaged:minilm") is None
    assert head_labels("bert-base-uncased") is None
    assert replaced_head(encoder, ("bad", "good")) is None
    assert load_config(encoder, 2).num_labels == 2


def test_names_that_differ_in_case_only_match_as_they_are_or_not_at_all():
    assert head_rows(["a", "A"], ["a", "A"]) == [0, 1]
    assert head_rows(["a", "A"], ["A", "a"]) is None
    assert head_rows(["b", "A"], ["a", "B"]) == [1, 0]


def test_a_replaced_head_is_on_the_first_screen_and_in_the_report(toy_csv, tmp_path):
    name, _ = save_classifier(tmp_path / "model", ["LABEL_0", "LABEL_1"])
    spec = toy_spec(name, toy_csv, strategies=["head"], seeds=[0], recipe={"epochs": 1, "max_length": 16})
    study, plans = Study(spec, tmp_path / "study"), list[Plan]()
    study.run(on_plan=plans.append)
    finding = f"replaced head: {name} has a head for other labels (LABEL_0, LABEL_1) than the data's; its output layer"
    assert any(line.startswith(f"! {finding}") for line in opening(plans[0]))
    assert finding in (study.folder / "report" / "index.html").read_text(encoding="utf-8").replace("&#39;", "'")
    # a study without a strategy that has a head says nothing; the stored finding stays
    assert not any(finding.kind == "replaced head" for finding in changed(study, strategies=["probe"]).plan().findings)

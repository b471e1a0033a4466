"""Every private name of a library: the fast way equals its plain fallback, and only compat.py uses private names."""

import ast
import copy
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import optuna
import peft
import peft.tuners.lora.layer
import peft.tuners.vera.layer
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import BertConfig

import tuneoff
from tests.tiny import random_batch, tiny_model
from tuneoff import compat
from tuneoff.encoder.dropout import FastDropout
from tuneoff.encoder.packed import forward
from tuneoff.engine.precision import compute_dtype
from tuneoff.machine import lists_native_bf16

PACKAGE = Path(tuneoff.__file__).parent
LIBRARIES = ("torch", "transformers", "peft", "optuna")
BF16_CHECKS = ("_is_avx512_bf16_supported", "_is_amx_tile_supported", "_is_arm_bf16_supported")


def random(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def missing(self):
    """Getter of a property that acts as if it did not exist: C classes cannot lose attributes."""
    raise AttributeError


# ---- torch


@pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="reads the flags of /proc/cpuinfo"
)
def test_native_bf16_is_what_linux_lists():
    flags = set(Path("/proc/cpuinfo").read_text().split())
    assert compat.has_native_bf16_cpu() == bool(flags & {"avx512_bf16", "amx_tile"}) == lists_native_bf16()


@pytest.mark.parametrize("supported", [None, *BF16_CHECKS])
def test_native_bf16_needs_one_of_torchs_checks_or_without_them_linux_list(supported, monkeypatch):
    for check in BF16_CHECKS:
        monkeypatch.setattr(torch.cpu, check, lambda check=check: check == supported, raising=False)
    assert compat.has_native_bf16_cpu() == (supported is not None)
    for check in BF16_CHECKS:
        monkeypatch.delattr(torch.cpu, check)
    for flags, expected in (({"avx2", "amx_tile"}, True), ({"avx2"}, False), (set(), False)):
        monkeypatch.setattr("tuneoff.machine.processor_flags", lambda flags=flags: frozenset(flags))
        assert compat.has_native_bf16_cpu() is expected


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")
@pytest.mark.parametrize("has_bias", [True, False])
def test_onednn_linear_equals_torchs(has_bias, monkeypatch):
    states, weight, bias = random(1, 33, 48), random(20, 48, seed=1), random(20, seed=2) if has_bias else None
    calls, torchs_linear = [], F.linear

    def recorded_linear(*arguments):
        calls.append(arguments)
        return torchs_linear(*arguments)

    monkeypatch.setattr(F, "linear", recorded_linear)
    fast = compat.onednn_linear(states, weight, bias)
    assert not calls
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace())
    plain = compat.onednn_linear(states, weight, bias)
    assert len(calls) == 1
    torch.testing.assert_close(fast, plain, atol=1e-5, rtol=1e-5)


def test_gradients_divided_in_the_fused_step_equal_those_divided_before_it():
    def step(parameter, has_private_name):
        optimizer = torch.optim.AdamW([parameter], lr=1e-2, fused=True)
        if not has_private_name:
            del optimizer._step_supports_amp_scaling
        for seed in range(5):
            parameter.grad = random(7, 5, seed=seed)
            # another one in each step, because AdamW's steps do not depend on a constant factor
            compat.divide_gradients_at_step(optimizer, torch.tensor(1.0 + 3 * seed))
            is_divided = not torch.equal(parameter.grad, random(7, 5, seed=seed))
            assert is_divided == (seed > 0 and not has_private_name)
            optimizer.step()

    fast, plain = (nn.Parameter(random(7, 5, seed=9)) for _ in range(2))
    step(fast, has_private_name=True)
    step(plain, has_private_name=False)
    torch.testing.assert_close(fast, plain, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("has_private_name", [True, False])
def test_a_step_is_left_out_without_reading_whether(has_private_name):
    parameter = nn.Parameter(random(7, 5))
    optimizer = torch.optim.AdamW([parameter], lr=1e-2, weight_decay=0.0, fused=True)
    if not has_private_name:
        del optimizer._step_supports_amp_scaling
    parameter.grad = torch.full_like(parameter, torch.nan)
    compat.divide_gradients_at_step(optimizer, torch.tensor(2.0), torch.tensor(1.0))
    optimizer.step()
    assert torch.equal(parameter, random(7, 5))
    parameter.grad = random(7, 5, seed=1)
    compat.divide_gradients_at_step(optimizer, torch.tensor(2.0), torch.tensor(0.0))
    optimizer.step()
    assert not torch.equal(parameter, random(7, 5))


def test_tensors_copied_together_equal_those_copied_one_by_one(monkeypatch):
    sources = [random(3, 4), random(5, seed=1).bfloat16()]

    def copies():
        targets = [torch.zeros(3, 4, dtype=torch.bfloat16), torch.zeros(5)]
        compat.copy_all(targets, sources)
        return targets

    together = copies()
    monkeypatch.delattr(torch, "_foreach_copy_")
    assert all(map(torch.equal, together, copies()))
    compat.copy_all([], [])


def test_fused_attention_is_used_only_with_the_arguments_that_are_known(monkeypatch):
    assert compat.has_flash_attention()
    assert compat.has_efficient_attention()
    compat._has_operator.cache_clear()
    monkeypatch.setattr(torch.ops, "aten", SimpleNamespace())
    assert not compat.has_flash_attention()
    assert not compat.has_efficient_attention()
    monkeypatch.undo()
    compat._has_operator.cache_clear()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
def test_softmax_backward_equals_the_formula_and_autograd(dtype, tolerance, monkeypatch):
    scores, gradient = random(6, 9, 9).requires_grad_(), random(6, 9, 9, seed=1)
    scores.softmax(-1).backward(gradient)
    arguments = gradient.to(dtype), scores.softmax(-1).detach().to(dtype)
    fast = compat.softmax_backward(*arguments)
    monkeypatch.delattr(torch, "_softmax_backward_data")
    plain = compat.softmax_backward(*arguments)
    assert fast.dtype == plain.dtype == dtype
    torch.testing.assert_close(fast, plain, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(plain.float(), scores.grad, atol=tolerance, rtol=10 * tolerance)


def test_sparse_rows_sum_to_the_same_gradient_as_coalesced_ones(monkeypatch):
    embedding = nn.Embedding(30, 4, sparse=True)
    ids = torch.tensor([3, 7, 3, 29, 3])
    (embedding(ids) * random(5, 4)).sum().backward()
    gradient = embedding.weight.grad
    assert gradient is not None
    sums = []
    for has_private_names in (True, False):
        if not has_private_names:
            monkeypatch.setattr(torch.Tensor, "_indices", property(missing))
        indices, rows = compat.sparse_rows(gradient)
        assert len(indices) == (5 if has_private_names else 3)
        sums.append(torch.zeros(30, 4).index_add_(0, indices, rows))
    torch.testing.assert_close(*sums)
    torch.testing.assert_close(sums[0], gradient.to_dense())


def test_a_swapped_class_keeps_parameters_and_hooks_and_can_be_copied():
    class Doubled(nn.Linear):
        def forward(self, states):
            return 2 * super().forward(states)

    plain, swapped = nn.Linear(4, 3), nn.Linear(4, 3)
    swapped.load_state_dict(plain.state_dict())
    calls = []
    swapped.register_forward_hook(lambda *arguments: calls.append(arguments))
    compat.swap_class(swapped, Doubled)
    copied = copy.deepcopy(swapped)
    assert list(swapped.state_dict()) == list(plain.state_dict())
    for module in (swapped, copied):
        assert torch.equal(module(torch.ones(2, 4)), 2 * plain(torch.ones(2, 4)))
    assert calls
    with pytest.raises(AssertionError, match="is not a subclass"):
        compat.swap_class(plain, FastDropout)


# ---- transformers


@pytest.mark.parametrize("model_type", ["bert", "distilbert", "roberta", "albert", "deberta-v2"])
def test_initial_weights_have_the_same_distribution_in_the_fallback(model_type, monkeypatch):
    """Random numbers may be drawn in another order; constants and standard deviations agree."""
    model = tiny_model(model_type, hidden_size=64, embedding_size=64, pooler_hidden_size=64)
    modules = [module for module in model.modules() if isinstance(module, (nn.Linear, nn.LayerNorm))]

    def initialised():
        for module in modules:
            for parameter in module.parameters():
                parameter.data.fill_(7.0)
            compat.initialise_module(model, module)
        return [parameter.detach().clone() for module in modules for parameter in module.parameters()]

    with_private_name = initialised()
    with monkeypatch.context() as patch:
        patch.setattr(type(model), "_init_weights", None)
        plain = initialised()
    for fast, fallback in zip(with_private_name, plain, strict=True):
        if fast.ndim == 1:
            assert torch.equal(fast, fallback)
        else:
            assert fallback.std().item() == pytest.approx(fast.std().item(), rel=0.2)
            assert abs(fallback.mean().item()) < 4 * 0.02 / fallback.numel() ** 0.5


def test_a_parameter_that_is_marked_as_loaded_is_initialised_too():
    model = tiny_model("bert")
    model.classifier.weight._is_hf_initialized = True
    before = model.classifier.weight.detach().clone()
    compat.initialise_module(model, model.classifier)
    assert not torch.equal(model.classifier.weight, before)


def test_attention_implementation_is_the_one_that_was_set_and_none_in_the_fallback():
    model = tiny_model("bert")
    assert compat.attention_implementation(model.config) == "tuneoff_packed"
    model.set_attn_implementation("eager")
    assert compat.attention_implementation(model.config) == "eager"
    assert compat.attention_implementation(object()) is None


def test_hub_commit_is_that_of_the_config_and_empty_in_the_fallback():
    config = BertConfig()
    assert compat.hub_commit(config) == ""
    config._commit_hash = "abc"
    assert compat.hub_commit(config) == "abc"
    assert compat.hub_commit(object()) == ""


# ---- peft


def lora_layers(dropout=0.0):
    """The layers of a tiny model with LoRA as peft makes them, and the model."""
    model = tiny_model("bert")
    torch.manual_seed(0)
    peft.inject_adapter_in_model(peft.LoraConfig(target_modules=["query"], lora_alpha=24, lora_dropout=dropout), model)
    layers = [module for module in model.modules() if isinstance(module, peft.tuners.lora.layer.Linear)]
    for layer in layers:
        layer.lora_B["default"].weight.data = random(layer.out_features, 8, seed=1)  # starts at zero
    return layers, model.train()


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_fast_lora_layers_equal_pefts(dropout, monkeypatch):
    """Outputs and all gradients, with the same dropout mask."""
    results = []
    for has_private_name in (True, False):
        (layer, *_), model = lora_layers(dropout)
        with monkeypatch.context() as patch:
            if not has_private_name:
                patch.delattr(peft.tuners.lora.layer, "Linear")
            compat.use_fast_lora(model)
        assert isinstance(layer, compat.fast_lora_class()) == has_private_name
        states = random(1, 7, layer.in_features).requires_grad_()
        torch.manual_seed(0)
        output = layer(states)
        output.square().sum().backward()
        gradients = [parameter.grad for parameter in layer.parameters() if parameter.requires_grad]
        assert len(gradients) == 2
        results.append([output.detach(), states.grad, *gradients])
    for fast, plain in zip(*results, strict=True):  # sums in another order: rounding of the largest gradients
        torch.testing.assert_close(fast, plain, atol=1e-6 * float(plain.abs().max()), rtol=1e-5)


def test_fast_lora_layers_of_all_models_have_one_class():
    (first, model), (second, other_model) = lora_layers(), lora_layers()
    compat.use_fast_lora(model)
    compat.use_fast_lora(other_model)
    assert {type(layer) for layer in first + second} == {compat.fast_lora_class()}


@pytest.mark.parametrize("state", ["merged", "disabled", "two adapters", "dora"])
def test_fast_lora_layers_leave_unusual_states_to_peft(state):
    (layer, *_), model = lora_layers()
    if state == "dora":
        layer.update_layer("default", r=8, lora_alpha=8, config=peft.LoraConfig(use_dora=True))
    if state == "two adapters":
        layer.update_layer("second", r=8, lora_alpha=8, config=peft.LoraConfig(init_lora_weights=False))
        layer.set_adapter(["default", "second"])
    if state == "merged":
        layer.merge()
    if state == "disabled":
        layer.enable_adapters(False)
    layer.lora_B["default"].weight.data = random(layer.out_features, 8, seed=1)  # a new update starts at zero
    states = random(1, 5, layer.in_features)
    plain = layer(states)
    compat.use_fast_lora(model)
    assert isinstance(layer, compat.fast_lora_class())
    assert torch.equal(layer(states), plain)


def test_a_lora_layer_without_an_attribute_that_we_read_stays_pefts():
    (changed, *rest), model = lora_layers()
    del changed.scaling
    compat.use_fast_lora(model)
    assert type(changed) is peft.tuners.lora.layer.Linear
    assert {type(layer) for layer in rest} == {compat.fast_lora_class()}


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft reads a deprecated name of transformers
def test_veras_shared_projections_follow_the_layers_dtype(monkeypatch):
    def logits(dtype, has_private_name=True):
        model = tiny_model("bert")
        torch.manual_seed(0)
        peft.get_peft_model(model, peft.VeraConfig(r=4, target_modules=["query"], d_initial=1.0))
        with monkeypatch.context() as patch:
            if not has_private_name:
                patch.delattr(peft.tuners.vera.layer, "VeraLayer")
            compat.keep_vera_dtype(model)
        with compute_dtype(dtype, model), torch.no_grad():
            return forward(model, random_batch([5, 3]))

    cast = logits(torch.float32)
    assert torch.equal(logits(torch.float32, has_private_name=False), cast)
    torch.testing.assert_close(logits(torch.bfloat16), cast, atol=3e-2, rtol=3e-2)
    with pytest.raises(RuntimeError, match="dtype"):
        logits(torch.bfloat16, has_private_name=False)


# ---- optuna


def pruned_study(trials=()):
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    for trial in trials:
        study.add_trial(trial)
    return study


def finished_trial(value):
    """A trial of a real study with three reported scores, and the value of its parameter."""
    study = pruned_study()
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    for step in (1, 2, 3):
        trial.report(value, step)
        trial.should_prune()
    study.tell(trial, value)
    return study.trials[0]


def rebuilt(trial):
    return compat.past_trial(
        notes=compat.pruning_notes(trial),
        params=trial.params,
        distributions=trial.distributions,
        value=trial.value,
        intermediate_values=trial.intermediate_values,
    )


def is_pruned(trials, score):
    study = pruned_study(trials)
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    trial.report(score, 1)
    return trial.should_prune()


def missing_attribute(trial):
    """Behave as a class without the attribute; older versions of optuna inherit an abstract one."""
    raise AttributeError("system_attrs")


def test_a_rebuilt_trial_prunes_as_the_original(monkeypatch):
    original = finished_trial(0.9)
    copied = rebuilt(original)
    assert len(compat.pruning_notes(original)) > 0
    assert (copied.params, copied.value, copied.intermediate_values) == (original.params, 0.9, {1: 0.9, 2: 0.9, 3: 0.9})
    assert compat.pruning_notes(copied) == compat.pruning_notes(original)
    assert [is_pruned([trial], score) for trial in (original, copied) for score in (0.1, 0.95)] == [True, False] * 2


def test_without_optunas_private_names_a_trial_is_rebuilt_without_notes(monkeypatch):
    original, create = finished_trial(0.9), optuna.trial.create_trial

    def create_without_system_attrs(
        *, state=optuna.trial.TrialState.COMPLETE, value, params, distributions, intermediate_values
    ):
        return create(
            state=state,
            value=value,
            params=params,
            distributions=distributions,
            intermediate_values=intermediate_values,
        )

    monkeypatch.setattr(optuna.trial, "create_trial", create_without_system_attrs)
    monkeypatch.setattr(optuna.trial.FrozenTrial, "system_attrs", property(missing_attribute))
    copied = rebuilt(original)
    assert compat.pruning_notes(original) == {}
    assert (copied.params, copied.value, copied.intermediate_values) == (original.params, 0.9, {1: 0.9, 2: 0.9, 3: 0.9})
    monkeypatch.undo()
    assert compat.pruning_notes(copied) == {}
    assert not is_pruned([copied], 0.1)


# ---- only compat.py


def private_uses(source, own_names):
    """Private names of libraries in a module's source, and assignments of a class, as (line, name).

    A name counts as private if it starts with an underscore, is not a dunder, is not defined in our package, and is not
    an attribute of another imported module.
    """

    modules = {}  # name -> the package that it was imported from
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for alias in node.names:
                origin = node.module if isinstance(node, ast.ImportFrom) else alias.name
                assert origin is not None, "the scan does not read relative imports"
                modules[(alias.asname or alias.name).split(".")[0]] = origin.split(".")[0]

    def is_public_library(node):  # os._exit, for example, is documented
        while isinstance(node, ast.Attribute):
            node = node.value
        return isinstance(node, ast.Name) and modules.get(node.id, "torch") not in LIBRARIES

    def is_foreign(name):
        return name.startswith("_") and not (name.startswith("__") and name.endswith("__")) and name not in own_names

    uses = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            is_class_assignment = node.attr == "__class__" and isinstance(node.ctx, ast.Store)
            if (is_foreign(node.attr) and not is_public_library(node)) or is_class_assignment:
                uses.append((node.lineno, node.attr))
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            module = getattr(node, "module", None) or ""
            parts = [part for alias in node.names for part in [*module.split("."), *alias.name.split(".")]]
            uses += [(node.lineno, part) for part in parts if is_foreign(part)]
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("getattr", "hasattr", "setattr", "delattr")
        ):
            value = node.args[1].value if isinstance(node.args[1], ast.Constant) else None
            name = value if isinstance(value, str) else ""
            if is_foreign(name) or (name == "__class__" and node.func.id == "setattr"):
                uses.append((node.lineno, name))
    return uses


def names_defined_in(sources):
    names = set()
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                names.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
            elif (
                isinstance(node, ast.Attribute)
                and isinstance(node.ctx, ast.Store)
                and isinstance(node.value, ast.Name)
                and node.value.id == "self"
            ):
                names.add(node.attr)
    return names


SOURCES = {str(path.relative_to(PACKAGE)): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}


def test_only_compat_uses_private_names_of_libraries_or_assigns_a_class():
    own_names = names_defined_in(SOURCES.values())
    uses = {path: private_uses(source, own_names) for path, source in SOURCES.items()}
    assert len(uses.pop("compat.py")) > 5  # the scan sees what it looks for
    assert uses.pop("compat_ray.py")
    assert {path: names for path, names in uses.items() if names} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch._C",
        "from torch._dynamo import x",
        "from torch import _dynamo",
        "model._init_weights(module)",
        "getattr(model, '_init_weights')",
        "module.__class__ = Fast",
        "setattr(module, '__class__', Fast)",
    ],
)
def test_the_scan_sees_a_private_name(source):
    assert len(private_uses(source, own_names={"_our_own"})) == 1
    harmless = "import os\nself._our_own = type(module).__name__; module.__class__; os._exit(1)"
    assert private_uses(harmless, own_names={"_our_own"}) == []


def test_compat_imports_nothing_of_ours_and_no_library_before_it_is_used():
    code = "import sys, tuneoff.compat; print([m for m in sys.modules if m.split('.')[0] in ('peft', 'optuna', 'transformers') or m.startswith('tuneoff.')])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "['tuneoff.compat']"

"""Inputs of jobs: an encoder's files must be those with which the study began."""

import json
import shutil

import pytest

from tests.studies import toy_spec
from tuneoff.errors import ModelError
from tuneoff.execute.inputs import CachedInputs
from tuneoff.grid import prepare


def test_an_encoder_that_changes_while_its_study_runs_is_noticed(encoder, toy_csv, tmp_path):
    changing = shutil.copytree(encoder, tmp_path / "changing")
    spec = toy_spec(str(changing), toy_csv, strategies=["head"], recipe={"epochs": 1, "max_length": 16})
    (run, *_) = prepare(spec).runs
    inputs = CachedInputs()
    inputs.model(run, inputs.dataset(run))
    config = json.loads((changing / "config.json").read_text())
    (changing / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 1e-3}))
    with pytest.raises(ModelError, match=r"the files of encoder .* have changed since this study began; run it again"):
        inputs.model(run, inputs.dataset(run))

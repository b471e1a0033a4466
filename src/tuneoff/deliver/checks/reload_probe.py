"""Class probabilities from a linear probe and its encoder, by transformers and skops.

python reload_probe.py FOLDER EXAMPLES OUTPUT    EXAMPLES: JSON, [[text], ...] or [[text, second text], ...]
"""

import json
import sys
from pathlib import Path

import numpy as np
import skops.io
import torch
from scipy.special import expit, softmax
from transformers import AutoModel, AutoTokenizer

folder, examples_file, output = sys.argv[1:4]
with open(examples_file, encoding="utf-8") as file:
    examples = json.load(file)
described = json.loads((Path(folder) / "tuneoff.json").read_text(encoding="utf-8"))
tokenizer = AutoTokenizer.from_pretrained(Path(folder) / "encoder")
encoder = AutoModel.from_pretrained(Path(folder) / "encoder").eval()
classifier = skops.io.load(Path(folder) / "classifier.skops")  # refuses types that could run code

vectors = []
for start in range(0, len(examples), 16):
    columns = [list(column) for column in zip(*examples[start : start + 16], strict=True)]
    batch = tokenizer(*columns, padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        states = encoder(**batch).last_hidden_state  # (examples, tokens, hidden)
    mask = batch["attention_mask"][..., None]
    is_mean = described["strategy"]["probe"]["pooling"] == "mean"
    vectors.append(((states * mask).sum(1) / mask.sum(1) if is_mean else states[:, 0]).numpy())

features = np.concatenate(vectors)
if hasattr(classifier, "predict_proba"):
    probabilities = classifier.predict_proba(features)
else:  # a linear SVM: its stored coefficients are scaled so that softmax of the margins gives probabilities
    margins = classifier.decision_function(features)
    margins = np.stack([-margins, margins], axis=1) / 2 if margins.ndim == 1 else margins
    probabilities = expit(margins) if described["is_multilabel"] else softmax(margins, axis=1)

with open(output, "w", encoding="utf-8") as file:
    json.dump(probabilities.tolist(), file)

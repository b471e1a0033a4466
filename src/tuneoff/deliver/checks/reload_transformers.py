"""Class probabilities from a folder that transformers loads, by transformers alone.

python reload_transformers.py FOLDER EXAMPLES OUTPUT    EXAMPLES: JSON, [[text], ...] or [[text, second text], ...]
"""

import json
import sys

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

folder, examples_file, output = sys.argv[1:4]
with open(examples_file, encoding="utf-8") as file:
    examples = json.load(file)
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
to_probabilities = torch.sigmoid if model.config.problem_type == "multi_label_classification" else torch.nn.Softmax(-1)

probabilities: list[list[float]] = []
for start in range(0, len(examples), 16):
    columns = [list(column) for column in zip(*examples[start : start + 16], strict=True)]
    batch = tokenizer(*columns, padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        probabilities += to_probabilities(model(**batch).logits).tolist()

with open(output, "w", encoding="utf-8") as file:
    json.dump(probabilities, file)

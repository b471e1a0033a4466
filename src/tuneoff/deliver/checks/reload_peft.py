"""Class probabilities from a folder with an adapter of peft, by transformers and peft.

python reload_peft.py FOLDER EXAMPLES OUTPUT [BASE]    EXAMPLES: JSON, [[text], ...] or [[text, second text], ...]
BASE: place of the pretrained encoder, by default the one that adapter_config.json names.
"""

import json
import sys
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

folder, examples_file, output = sys.argv[1:4]
with open(examples_file, encoding="utf-8") as file:
    examples = json.load(file)
described = json.loads((Path(folder) / "tuneoff.json").read_text(encoding="utf-8"))
adapter_config = json.loads((Path(folder) / "adapter_config.json").read_text(encoding="utf-8"))
base = sys.argv[4] if len(sys.argv) > 4 else adapter_config["base_model_name_or_path"]

tokenizer = AutoTokenizer.from_pretrained(folder)
# the adapter holds the head of its own number of classes, which the base model must have too
encoder = AutoModelForSequenceClassification.from_pretrained(base, num_labels=len(described["label_names"]))
model = PeftModel.from_pretrained(encoder, folder).eval()
to_probabilities = torch.sigmoid if described["is_multilabel"] else torch.nn.Softmax(-1)

probabilities: list[list[float]] = []
for start in range(0, len(examples), 16):
    columns = [list(column) for column in zip(*examples[start : start + 16], strict=True)]
    batch = tokenizer(*columns, padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        probabilities += to_probabilities(model(**batch).logits).tolist()

with open(output, "w", encoding="utf-8") as file:
    json.dump(probabilities, file)

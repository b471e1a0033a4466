"""Class probabilities from an ONNX model, by onnxruntime and tokenizers.

python reload_onnx.py FOLDER EXAMPLES OUTPUT    EXAMPLES: JSON, [[text], ...] or [[text, second text], ...]
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

folder, examples_file, output = sys.argv[1:4]
with open(examples_file, encoding="utf-8") as file:
    examples = json.load(file)
config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))  # it truncates and pads
session = onnxruntime.InferenceSession(Path(folder) / "model.onnx", providers=["CPUExecutionProvider"])
names = [value.name for value in session.get_inputs()]

probabilities: list[list[float]] = []
for start in range(0, len(examples), 16):
    batch = [tuple(texts) if len(texts) > 1 else texts[0] for texts in examples[start : start + 16]]
    encodings = tokenizer.encode_batch(batch)
    columns = {
        "input_ids": [encoding.ids for encoding in encodings],
        "attention_mask": [encoding.attention_mask for encoding in encodings],
        "token_type_ids": [encoding.type_ids for encoding in encodings],
    }
    (logits,) = session.run(["logits"], {name: np.array(columns[name], np.int64) for name in names})
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    is_multilabel = config["problem_type"] == "multi_label_classification"
    batch_probabilities = 1 / (1 + np.exp(-logits)) if is_multilabel else exponentials / exponentials.sum(1)[:, None]
    probabilities += batch_probabilities.tolist()

with open(output, "w", encoding="utf-8") as file:
    json.dump(probabilities, file)

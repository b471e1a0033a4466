"""Class probabilities from a scikit-learn pipeline on texts, by skops and scikit-learn.

python reload_skops.py FOLDER EXAMPLES OUTPUT    EXAMPLES: JSON, [[text], ...] or [[text, second text], ...]
"""

import json
import sys
from pathlib import Path

import skops.io

folder, examples_file, output = sys.argv[1:4]
with open(examples_file, encoding="utf-8") as file:
    examples = json.load(file)
classifier = skops.io.load(Path(folder) / "classifier.skops")  # refuses types that could run code
probabilities = classifier.predict_proba(["\n".join(texts) for texts in examples]).tolist()

with open(output, "w", encoding="utf-8") as file:
    json.dump(probabilities, file)

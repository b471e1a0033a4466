"""Use of the Hugging Face hub without a network: from its local cache, without waiting."""

import os
import ssl
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

_OFFLINE = "HF_HUB_OFFLINE"  # environment variables of huggingface_hub, which reads them when it is imported
_ENDPOINT = "HF_ENDPOINT"
_SECONDS = 6.0  # that the hub has to answer
_GATEWAY_ERRORS = (502, 503, 504)  # of a proxy that reaches no hub


def stay_offline_without_network(models: Iterable[str], source: str | None = None) -> None:
    """Restrict the hub's client to its cache if a name is on the hub and the hub does not answer.

    The client tries six times to reach the hub, for 23 seconds a file, and has no setting for that number. To be called
    before huggingface_hub is imported. source: of the data.
    """
    if _is_needed(models, source) and not _answers():
        os.environ[_OFFLINE] = "1"


@contextmanager
def offline_without_network(models: Iterable[str], source: str | None = None) -> Iterator[None]:
    """A context in which the hub's client is restricted to its cache, under the same conditions; for a Python session.

    The client's modules that are imported already have read the variable; their settings are changed, and restored.
    """
    if not _is_needed(models, source) or _answers():
        yield
        return
    settings = [sys.modules[name] for name in ("huggingface_hub.constants", "datasets.config") if name in sys.modules]
    before = [getattr(setting, _OFFLINE) for setting in settings]
    os.environ[_OFFLINE] = "1"
    try:
        for setting in settings:
            setattr(setting, _OFFLINE, True)
        yield
    finally:
        del os.environ[_OFFLINE]
        for name in ("huggingface_hub.constants", "datasets.config"):
            module = sys.modules.get(name)
            if module is not None:
                setattr(module, _OFFLINE, before[settings.index(module)] if module in settings else False)


def _is_needed(models: Iterable[str], source: str | None) -> bool:
    is_on_hub = any(map(_may_be_on_hub, models)) or (source or "").startswith("hf:")
    return is_on_hub and _OFFLINE not in os.environ


def _may_be_on_hub(model: str) -> bool:
    is_local = model.startswith((".", "/", "~", "packaged:")) or "\\" in model or Path(model).is_dir()
    return not is_local


def _answers() -> bool:
    """Return True if the hub, or a proxy for it, answers in time.

    In a thread: the time-out of a request covers neither the search for an address nor several addresses.
    """
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(_responds()), daemon=True)
    thread.start()
    thread.join(_SECONDS)
    return answers == [True]


def _responds() -> bool:
    try:
        request = Request(os.environ.get(_ENDPOINT) or "https://huggingface.co", method="HEAD")
        urlopen(request, timeout=_SECONDS).close()
    except HTTPError as error:
        return error.code not in _GATEWAY_ERRORS
    except URLError as error:  # certificates: the client may have others
        return isinstance(error.reason, ssl.SSLError)
    except (OSError, ValueError):
        return False
    return True

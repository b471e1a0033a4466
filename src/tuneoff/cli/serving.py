"""The command serve: load the models, say where the page is, and answer until Ctrl-C."""

import ipaddress

from tuneoff.cli.output import console, visible
from tuneoff.errors import LibraryError


def serve_models(folder: str, host: str, port: int, encoder: str | None) -> None:
    """Serve the models of a folder. Raises LibraryError if the extra `serve` is not installed."""
    try:
        import captum  # noqa: F401
        import uvicorn  # noqa: F401

        from tuneoff.serve.app import create_app, listen, serve
    except ImportError as error:
        raise LibraryError(f"serve needs {error.name}; install it with pip install 'tuneoff[serve]'") from error
    from tuneoff.serve.models import served_models

    listening = listen(host, port)  # before the models, which take seconds
    with listening:
        with console.status("loading the models"):
            models = served_models(folder, encoder)
        address, actual_port = listening.getsockname()[:2]
        shown = f"[{address}]" if ":" in address else address
        for model in models:
            console.print(visible(f"{model.label}{'  recommended' if model.is_recommended else ''}"))
        if not _is_loopback(address):
            console.print("Other machines can reach this page: it has no password and no encryption.")
        console.print(f"http://{shown}:{actual_port}  (Ctrl-C ends it)", markup=False)
        name = folder.rstrip("/").rpartition("/")[2]
        serve(create_app(models, name, host), listening)


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback

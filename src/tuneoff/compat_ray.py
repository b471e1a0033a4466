"""Private names of Ray, each with a plain way where it is gone. Apart from compat.py, which imports torch."""

from typing import Any


def cluster_id(head: str) -> str:
    """Return the id of the cluster at an address, or "": Ray ends this process if it asks a restarted head anything."""
    import ray._raylet

    client = getattr(ray._raylet, "GcsClient", None)
    return "" if client is None or head.startswith("ray://") else str(client(address=head).cluster_id)


def silence(ray: Any) -> None:
    """Keep Ray from printing the log of each machine that dies, for which it has no option."""
    if hasattr(ray._private.worker, "print_to_stdstream"):
        ray._private.worker.print_to_stdstream = lambda *_, **__: None

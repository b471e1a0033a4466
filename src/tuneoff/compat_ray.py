"""Private names of Ray, each with a plain way where it is gone. Apart from compat.py, which imports torch."""

import os
from typing import Any


def cluster_id(head: str) -> str:
    """Return the id of the cluster at an address, or "": Ray ends this process if it asks a restarted head anything."""
    import ray._raylet

    client = getattr(ray._raylet, "GcsClient", None)
    return "" if client is None or head.startswith("ray://") else str(client(address=head).cluster_id)


def outlive_raylet() -> None:
    """Keep Ray from ending this process when the raylet of its machine has died. Before Ray is imported.

    Where Ray is not told the raylet's process, it asks whether the parent process is alive: that of a study that was
    started in the background (nohup) often is not. A study leaves a lost cluster, and waits for it, by itself.
    """
    os.environ.setdefault("RAY_RAYLET_PID", str(os.getpid()))


def silence(ray: Any) -> None:
    """Keep Ray from printing the log of each machine that dies, for which it has no option."""
    if hasattr(ray._private.worker, "print_to_stdstream"):
        ray._private.worker.print_to_stdstream = lambda *_, **__: None

"""A Ray cluster in a process of its own, whose head can die and be started again at the same address.

Arguments: port of the head, number of nodes, folder of caches. Prints the address; "die" on standard input kills every
process of the cluster at once.
"""

import sys
from typing import Any

from ray.cluster_utils import Cluster

from tests.waiting import SECONDS


def main() -> None:
    port, count, caches = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    options: dict[str, Any] = {
        "num_cpus": 1,
        "memory": 8 * 2**30,
        "object_store_memory": 10**8,
        "include_dashboard": False,
    }
    cluster = Cluster()
    for number in range(count):
        first: dict[str, Any] = {} if number else {"gcs_server_port": port}
        cluster.add_node(**options, **first, env_vars={"TUNEOFF_CACHE": f"{caches}/cache {number}", SECONDS: "0.2"})
    print(cluster.address, flush=True)
    for node in cluster.list_all_nodes() if sys.stdin.readline().strip() == "die" else ():
        node.kill_all_processes(check_alive=False, allow_graceful=False)
    cluster.shutdown()


if __name__ == "__main__":
    main()

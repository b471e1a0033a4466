"""A worker process that closes its standard input before it reads a job, and ends later."""

import json
import os
import sys
import time

if __name__ == "__main__":
    os.close(0)
    print(json.dumps({"event": "ready"}), flush=True)
    time.sleep(1)
    print("no space left", file=sys.stderr)
    os._exit(3)

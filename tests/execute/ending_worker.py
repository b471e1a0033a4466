"""A worker that ends as soon as it gets a job, and says why on standard error."""

import sys

print('{"event": "ready"}', flush=True)
sys.stdin.readline()
print("no space left", file=sys.stderr)
sys.exit(3)

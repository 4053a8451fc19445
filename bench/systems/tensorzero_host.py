"""Runs TensorZero's embedded HTTP gateway until SIGTERM; executed by the Python of its own environment.

The gateway listens on a random port of 127.0.0.1 in threads of its own; this thread only sleeps.
"""

# pyright: basic, reportMissingImports=false
# The package is in the peer's environment, not in ours, and carries no types for this function.

import signal
import sys
from pathlib import Path
from urllib.parse import urlsplit

from tensorzero.tensorzero import _start_http_gateway


def main() -> None:
    configuration, port_file = sys.argv[1:]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    gateway = _start_http_gateway(
        config_file=configuration, clickhouse_url=None, postgres_url=None, valkey_url=None, async_setup=False
    )
    written = Path(port_file).with_suffix(".part")
    written.write_text(str(urlsplit(gateway.base_url).port))
    written.rename(port_file)
    while True:
        signal.pause()


if __name__ == "__main__":
    main()

"""The generator for ragbot's peers: the llama.cpp that ragbot runs, as an OpenAI-compatible server.

`python -m scripts.bench.answerer.model_server MODEL CONTEXT` announces its address, and serves with
llama.cpp's own defaults, which keep the beginning that a prompt shares with the one before, until
standard input ends: whoever started it is gone then.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def main(model: Path, context: int) -> None:
    """Serve a GGUF file on a free port of this machine."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.n_ctx = context
    params.cpuparams.n_threads = os.cpu_count() or 1
    params.endpoint_metrics = True
    params.ui = False
    params.verbosity = -1
    server = xllamacpp.Server(params)  # it stops when it is collected
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))

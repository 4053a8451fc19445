"""What can be said about local models."""

from typing import Annotated

import msgspec


class LlamaCppSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`models` are GGUF files by the name they are asked for, `~` being the home folder. What follows is for each of them.

    `context` is in tokens (0: as many as the model was trained on, which may take more memory than there is). `gpu_layers` are
    put on a GPU where llama.cpp was built for one (-1: all). `threads` is for generation (0: llama.cpp decides).
    """

    models: dict[str, str]
    context: Annotated[int, msgspec.Meta(ge=0)] = 4096
    gpu_layers: Annotated[int, msgspec.Meta(ge=-1)] = -1
    threads: Annotated[int, msgspec.Meta(ge=0)] = 0

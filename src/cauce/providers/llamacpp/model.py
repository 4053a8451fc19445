"""A loaded model, through llama-cpp-python: prompts become tokens, and tokens become text. Only the worker comes here.

Of the library we use what loads and evaluates models, templates and grammars. Its own completions are left alone: they count no
tokens in streams, lose characters whose bytes are split, and read the whole text again for each token. Its cache on disk is
never made: what lies in it would be unpickled (CVE-2025-69872).
"""

import contextlib
import ctypes
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, cast

from cauce.providers.llamacpp.protocol import Done, Generate, ModelFile, Prompt
from cauce.providers.llamacpp.text import Writer

_FIRST_STEP = 32
_STEP_TIME = 0.3
"""Seconds that evaluating a piece of the prompt should take: a stop is looked for in between."""

_SAMPLING = {
    "temperature": "temp",
    "top_p": "top_p",
    "top_k": "top_k",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
}

logger = logging.getLogger("cauce.llamacpp.model")


class Refused(Exception):
    """It cannot be done, and the worker is none the worse for it. `kind` and `field` are those of `protocol.Failed`."""

    def __init__(self, kind: Literal["unsupported", "context", "load"], message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.kind: Literal["unsupported", "context", "load"] = kind
        self.field = field


class Model:
    """The model in `file`. Raises `Refused` when it cannot be loaded."""

    def __init__(self, library: Any, file: ModelFile) -> None:
        self.file = file
        self._library = library
        if not Path(file.path).is_file():
            raise self._unusable("is not there: correct its path in the configuration")
        formats = library.llama_chat_format
        computing = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError)
        # A template is a program out of the model file: besides its own errors it raises those of what it computes.
        self._template_errors: tuple[type[Exception], ...] = (formats.jinja2.TemplateError, *computing)
        try:
            self._llama = library.Llama(
                file.path,
                n_ctx=file.context,
                n_gpu_layers=file.gpu_layers,
                n_threads=file.threads or None,
                verbose=False,
            )
        except formats.jinja2.TemplateError as error:
            raise self._unusable("has a chat template that cannot be read", error) from error
        except (ValueError, RuntimeError, OSError, MemoryError) as error:
            raise self._unusable(
                "cannot be loaded: it is damaged, of a kind unknown here, or too large", error
            ) from error
        self._vocabulary = library.llama_model_get_vocab(self._llama.model)
        self._bos = self._special(self._llama.token_bos())
        # Without a template in the file: ChatML, as llama.cpp itself does it.
        self._template = self._llama.metadata.get("tokenizer.chat_template") or formats.CHATML_CHAT_TEMPLATE
        self._formatter = formats.Jinja2ChatFormatter(
            self._template, eos_token=self._special(self._llama.token_eos()), bos_token=self._bos
        )

    def close(self) -> None:
        """Give its memory back."""
        self._llama.close()

    def tokens(self, prompt: Prompt) -> list[int]:
        """The tokens of `prompt`. Raises `Refused` when the model's template does not take it."""
        text = prompt.text if prompt.text is not None else self._rendered(prompt)
        # Some templates begin with the token that begins every text, others leave it to the vocabulary: not twice.
        begun = bool(self._bos) and text.startswith(self._bos)
        return self._llama.tokenize(text.encode("utf-8", "replace"), add_bos=not begun, special=True)

    def generate(self, command: Generate, stopped: Callable[[], bool], wrote: Callable[[str], None]) -> Done:
        """Write an answer to `command`; `wrote` gets its text, `stopped` is asked between tokens. Raises `Refused`."""
        llama, sampling = self._llama, command.sampling
        tokens = self.tokens(command.prompt)
        if not tokens:
            raise Refused("unsupported", "the prompt is empty: give the model something to continue")
        room = llama.n_ctx() - len(tokens)
        if room <= 0:
            raise Refused(
                "context",
                f"the prompt has {len(tokens)} tokens, but the context of this model holds {llama.n_ctx()} with the answer",
            )
        most = min(sampling.max_tokens or room, room)
        chosen = {ours: value for name, ours in _SAMPLING.items() if (value := getattr(sampling, name)) is not None}
        grammar = self._grammar(command)
        if not self._evaluate(tokens, stopped):
            return Done(command.number, "cancelled", len(tokens), 0)
        seed = int.from_bytes(os.urandom(4)) if sampling.seed is None else sampling.seed
        llama.set_seed(seed & 0xFFFFFFFF)
        writer = Writer(sampling.stop)
        count = 0
        reason: Literal["stop", "length", "cancelled"] = "length"
        with contextlib.closing(llama.generate(tokens, grammar=grammar, **chosen)) as generated:
            for token in generated:
                if stopped():
                    return Done(command.number, "cancelled", len(tokens), count)
                if self._library.llama_vocab_is_eog(self._vocabulary, token):
                    reason = "stop"
                    break
                count += 1
                if text := writer.feed(self._bytes(token)):
                    wrote(text)
                if writer.ended:
                    reason = "stop"
                    break
                if count >= most:
                    break
        if text := writer.finish():
            wrote(text)
        return Done(command.number, reason, len(tokens), count)

    def _evaluate(self, tokens: list[int], stopped: Callable[[], bool]) -> bool:
        """Evaluate all but the end of a prompt, step by step; whether nobody stopped it."""
        library, llama = self._library, self._llama
        if library.llama_model_is_recurrent(llama.model) or library.llama_model_is_hybrid(llama.model):
            # These may not be able to go on from where they are: each step would begin anew.
            return not stopped()
        step, place = (
            _FIRST_STEP,
            library.Llama.longest_token_prefix(llama.input_ids[: llama.n_tokens].tolist(), tokens),
        )
        while place + step < len(tokens):
            if stopped():
                return False
            place += step
            began = time.monotonic()
            with contextlib.closing(llama.generate(tokens[:place], temp=0.0)) as evaluated:
                # What is drawn is not used: the library evaluates what is new, and remembers.
                next(evaluated)
            took = time.monotonic() - began
            if took < _STEP_TIME / 2:
                step = min(step * 2, llama.n_batch)
            elif took > _STEP_TIME * 2:
                step = max(step // 2, 1)
        return not stopped()

    def _rendered(self, prompt: Prompt) -> str:
        if prompt.tools and "tools" not in self._template:
            raise Refused("unsupported", "the chat template of this model does not know tools", "tools")
        try:
            rendered = self._formatter(messages=prompt.messages, tools=prompt.tools or None, **prompt.options)
        except self._template_errors as error:
            raise Refused(
                "unsupported", f"the chat template of this model does not take this conversation: {error}"
            ) from error
        return cast(str, rendered.prompt)

    def _grammar(self, command: Generate) -> Any:
        """What the answer must follow. Raises `Refused`."""
        text = command.grammar
        if text is None:
            return None
        # The library adds a grammar without looking whether it was understood.
        sampler = self._library.llama_sampler_init_grammar(self._vocabulary, text.encode(), b"root")
        if not sampler:
            field = "tools" if command.prompt.tools else "response_format"
            raise Refused("unsupported", f"{field}: llama.cpp does not take the grammar of this JSON schema", field)
        self._library.llama_sampler_free(sampler)
        return self._library.LlamaGrammar.from_string(text, verbose=False)

    def _unusable(self, why: str, error: Exception | None = None) -> Refused:
        # Where files are is for the log, not for clients.
        logger.error("%s %s (%s)", self.file.path, why, error)
        return Refused("load", f"the file of this model {why}")

    def _special(self, token: int) -> str:
        if token < 0:
            return ""
        return cast(bytes, self._library.llama_vocab_get_text(self._vocabulary, token)).decode("utf-8", "replace")

    def _bytes(self, token: int) -> bytes:
        """The bytes of a token. The library's own function cuts at 32."""
        size = 32
        while True:
            buffer = ctypes.create_string_buffer(size)
            length = self._library.llama_token_to_piece(self._vocabulary, token, buffer, size, 0, False)
            if length >= 0:
                return buffer.raw[:length]
            size = -length

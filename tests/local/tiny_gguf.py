"""A GGUF file of half a megabyte that answers as a test says: the last character of a message decides what comes.

It has the llama architecture, but its attention and feed-forward layers add nothing, and its embeddings are one-hot: the
logits depend on the last token alone, so a table of "after this token comes that one" is all it knows. Where the table says
nothing, weights are random.
"""

from pathlib import Path

import gguf
import numpy as np

ENDLESS = "é€🙀 "
"""What comes, again and again, after a message that ends with `!`. No byte occurs twice, and most characters have several."""

SHORT = "Hi"
"""What comes after a message that ends with `?`; then the answer ends."""

LONG_TOKEN = "-" * 40
"""What comes after a message that ends with `#`, as one token; then the answer ends."""

TEMPLATE = (
    "{%- if messages[0].role == 'tool' %}{{ raise_exception('a tool cannot speak first') }}{% endif %}"
    "{%- for message in messages %}<|{{ message.role }}|>{{ message.content }}\n{% endfor %}"
    "{%- if tools %}<|tools|>{{ tools | tojson }}\n{% endif %}"
    "<|assistant|>{{ messages[-1].content[-1:] }}"
)

_DIMENSIONS = 288
_HEADS, _HEAD, _FORWARD = 2, 16, 32
_END = "<|end|>"


def _characters() -> list[str]:
    """The character that stands for each byte in a byte-level vocabulary: itself where it can be seen, else one from U+0100 on."""
    seen = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    unseen = iter(range(0x100, 0x200))
    return [chr(byte) if byte in seen else chr(next(unseen)) for byte in range(256)]


def write(path: Path, context: int, template: str | None = TEMPLATE) -> None:
    """Write the model to `path`. `context` is how many tokens it says it was trained on."""
    tokens = [*_characters(), "in", LONG_TOKEN, _END]
    end = len(tokens) - 1
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(context)
    writer.add_embedding_length(_DIMENSIONS)
    writer.add_block_count(1)
    writer.add_feed_forward_length(_FORWARD)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_HEADS)
    writer.add_key_length(_HEAD)
    writer.add_value_length(_HEAD)
    writer.add_rope_dimension_count(_HEAD)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([*[gguf.TokenType.NORMAL] * end, gguf.TokenType.CONTROL])
    writer.add_token_merges(["i n"])
    writer.add_bos_token_id(end)
    writer.add_eos_token_id(end)
    writer.add_add_bos_token(False)
    if template is not None:
        writer.add_chat_template(template)
    _add_weights(writer, _following(tokens, end), len(tokens))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _following(tokens: list[str], end: int) -> dict[int, int]:
    """Which token follows which."""
    endless = list(ENDLESS.encode())
    return {
        ord("!"): endless[0],
        **dict(zip(endless, [*endless[1:], endless[0]], strict=True)),
        ord("?"): ord(SHORT[0]),
        ord(SHORT[0]): ord(SHORT[1]),
        ord(SHORT[1]): end,
        ord("#"): tokens.index(LONG_TOKEN),
        tokens.index(LONG_TOKEN): end,
    }


def _add_weights(writer: gguf.GGUFWriter, following: dict[int, int], count: int) -> None:
    random = np.random.default_rng(7)

    def noise(*shape: int) -> np.ndarray:
        return (random.standard_normal(shape) * 0.05).astype(np.float16)

    width = _HEADS * _HEAD
    output = noise(count, _DIMENSIONS)
    for token, after in following.items():
        output[after, token] = 2
    writer.add_tensor("token_embd.weight", np.eye(count, _DIMENSIONS, dtype=np.float16))
    writer.add_tensor("output_norm.weight", np.ones(_DIMENSIONS, np.float32))
    writer.add_tensor("output.weight", output)
    writer.add_tensor("blk.0.attn_norm.weight", np.ones(_DIMENSIONS, np.float32))
    writer.add_tensor("blk.0.ffn_norm.weight", np.ones(_DIMENSIONS, np.float32))
    for name in ("attn_q", "attn_k", "attn_v"):
        writer.add_tensor(f"blk.0.{name}.weight", noise(width, _DIMENSIONS))
    writer.add_tensor("blk.0.attn_output.weight", np.zeros((_DIMENSIONS, width), np.float16))
    for name in ("ffn_gate", "ffn_up"):
        writer.add_tensor(f"blk.0.{name}.weight", noise(_FORWARD, _DIMENSIONS))
    writer.add_tensor("blk.0.ffn_down.weight", np.zeros((_DIMENSIONS, _FORWARD), np.float16))

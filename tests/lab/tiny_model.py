# SPDX-License-Identifier: GPL-3.0-or-later
"""A random one-layer llama of 310 KB: it generates nonsense, through the real inference engine."""

from __future__ import annotations

from pathlib import Path

VOCABULARY_WORDS = ("▁the", "▁a", "▁model", "▁token", "▁answer", "▁safe", "▁door", "▁key")
EMBEDDING = 64
HEADS = 4
FEED_FORWARD = 128
CONTEXT = 2048
SEED = 20261123


def _vocabulary() -> tuple[list[str], list[float], list[int]]:
    """Tokens, scores and types of a SentencePiece vocabulary that can spell every byte."""
    from gguf import TokenType  # only the build needs it

    tokens = ["<unk>", "<s>", "</s>"]
    types = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL]
    tokens += [f"<0x{byte:02X}>" for byte in range(256)]
    types += [TokenType.BYTE] * 256
    tokens += VOCABULARY_WORDS
    types += [TokenType.NORMAL] * len(VOCABULARY_WORDS)
    scores = [0.0] * 259 + [-float(rank) for rank in range(1, len(VOCABULARY_WORDS) + 1)]
    return tokens, scores, [int(kind) for kind in types]


def write(path: Path, *, embeds: bool = False) -> None:
    """Write the model as a GGUF file; equal bytes at each call. ``embeds``: it makes embeddings."""
    import gguf
    import numpy

    tokens, scores, types = _vocabulary()
    random = numpy.random.default_rng(SEED)

    def weights(*shape: int) -> numpy.ndarray:
        return (random.standard_normal(shape) * 0.08).astype(numpy.float32)

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(EMBEDDING)
    writer.add_block_count(1)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(EMBEDDING // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    if embeds:
        writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)

    ones = numpy.ones(EMBEDDING, dtype=numpy.float32)
    writer.add_tensor("token_embd.weight", weights(len(tokens), EMBEDDING))
    writer.add_tensor("output.weight", weights(len(tokens), EMBEDDING))
    writer.add_tensor("output_norm.weight", ones)
    writer.add_tensor("blk.0.attn_norm.weight", ones)
    writer.add_tensor("blk.0.ffn_norm.weight", ones)
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        writer.add_tensor(f"blk.0.{name}.weight", weights(EMBEDDING, EMBEDDING))
    writer.add_tensor("blk.0.ffn_gate.weight", weights(FEED_FORWARD, EMBEDDING))
    writer.add_tensor("blk.0.ffn_up.weight", weights(FEED_FORWARD, EMBEDDING))
    writer.add_tensor("blk.0.ffn_down.weight", weights(EMBEDDING, FEED_FORWARD))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

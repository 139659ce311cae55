"""Facts of architectures that are read, and whose files no writer of ours makes."""

from typing import Any

T5: dict[str, Any] = {
    "block_count": 2, "decoder_block_count": 2, "context_length": 512, "embedding_length": 64,
    "feed_forward_length": 96, "attention.head_count": 4, "attention.key_length": 16,
    "attention.layer_norm_rms_epsilon": 1e-6, "attention.relative_buckets_count": 32,
    "decoder_start_token_id": 0,
}  # fmt: skip
RWKV7: dict[str, Any] = {
    "block_count": 3, "context_length": 1 << 20, "embedding_length": 64, "attention.head_count": 0,
    "feed_forward_length": 128, "wkv.head_size": 16, "attention.layer_norm_epsilon": 1e-5,
}  # fmt: skip
# By the architecture, with the full keys.
ONLY_READ: dict[str, dict[str, Any]] = {
    arch: {f"{arch}.{name}": value for name, value in facts.items()}
    for arch, facts in (("t5", T5), ("rwkv7", RWKV7))
}

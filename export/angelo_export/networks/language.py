"""Protein language models of the ESM family.

One module serves three purposes: the small embedder trained for our own bundle, and import of
ESM-1b and ESM-2 checkpoints (``angelo_export.esm_files``), whose parameter names
(fair-esm's) it keeps.

References
----------
Rives et al. 2021, doi:10.1073/pnas.2016239118 (ESM-1b);
Lin et al. 2023, doi:10.1126/science.ade2574 (ESM-2).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

#: Tokens in fair-esm's order; the index of a token is its identifier.
ALPHABET: tuple[str, ...] = (
    "<cls>", "<pad>", "<eos>", "<unk>",
    *"LAGVSERTIDPKQNFYMHWCXBUZO.-",
    "<null_1>", "<mask>",
)  # fmt: skip
#: Fraction of tokens masked in ESM's training (15 % chosen, 80 % of those masked), which
#: embeddings of unmasked sequences are scaled for.
TRAINING_MASK_FRACTION = 0.15 * 0.8
#: Wavelengths of rotary positions run from 2 pi to nearly 2 pi times this.
ROTARY_BASE = 10_000.0


@dataclass(frozen=True, slots=True)
class LanguageConfig:
    """Sizes and variant of a language model."""

    layers: int
    """Transformer layers."""
    width: int
    """Channels of an embedding, e."""
    heads: int
    """Attention heads; must divide the width (into even parts for rotary positions)."""
    tokens: int = len(ALPHABET)
    """Size of the alphabet."""
    positions: Literal["rotary", "learned"] = "rotary"
    """``rotary`` is ESM-2, ``learned`` is ESM-1b."""
    feed_forward: int | None = None
    """Channels inside a layer's feed-forward part; four times the width if None."""
    max_positions: int = 1024
    """Longest input of learned positions, special tokens included; rotary has no limit."""
    input_norm: bool = True
    """Whether a layer norm follows learned positions, as in ESM-1b; not all its kin have it."""
    padding_token: int = ALPHABET.index("<pad>")
    """Padding, which nothing attends to."""
    mask_token: int = ALPHABET.index("<mask>")
    """The token to be predicted; its embedding is zero when ``token_dropout`` is set."""
    token_dropout: bool = True
    """Zero masked tokens and scale the rest, as ESM-1b and ESM-2 do."""

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"{self.heads} heads do not divide a width of {self.width}")
        if self.positions == "rotary" and (self.width // self.heads) % 2:
            raise ValueError(f"rotary heads of odd width {self.width // self.heads}")


#: esm1b_t33_650M_UR50S, whose layer-33 embeddings official ModelAngelo checkpoints expect.
ESM1B = LanguageConfig(layers=33, width=1280, heads=20, positions="learned")


class RotaryPositions(nn.Module):
    """Turns pairs of channels by an angle that grows with the position.

    References
    ----------
    Su et al. 2021, arXiv:2104.09864, in the variant that pairs channel i with i + c/2.
    """

    inv_freq: Tensor

    def __init__(self, head_width: int) -> None:
        super().__init__()
        exponent = torch.arange(0, head_width, 2, dtype=torch.float32) / head_width
        self.register_buffer("inv_freq", ROTARY_BASE**-exponent)

    def forward(self, x: Float[Tensor, "b heads l c"]) -> Float[Tensor, "b heads l c"]:
        """Turn queries or keys."""
        place = torch.arange(x.shape[-2], device=x.device, dtype=self.inv_freq.dtype)
        angle = place[:, None] * self.inv_freq
        cosine, sine = angle.cos(), angle.sin()
        first, second = x.chunk(2, dim=-1)
        turned = (first * cosine - second * sine, second * cosine + first * sine)
        return torch.cat(turned, dim=-1)


class LearnedPositions(nn.Embedding):
    """One trained vector per position; the first real token sits at ``padding_token + 1``."""

    def __init__(self, config: LanguageConfig) -> None:
        n_rows = config.max_positions + config.padding_token + 1
        super().__init__(n_rows, config.width, padding_idx=config.padding_token)

    def forward(self, is_real: Bool[Tensor, "b l"]) -> Float[Tensor, "b l e"]:
        """Vectors for real tokens in order; padding gets the padding row."""
        real = is_real.long()
        return super().forward(real.cumsum(dim=1) * real + (self.padding_idx or 0))


class SelfAttention(nn.Module):
    """Multi-head self-attention over a sequence."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.k_proj = nn.Linear(config.width, config.width)
        self.v_proj = nn.Linear(config.width, config.width)
        self.q_proj = nn.Linear(config.width, config.width)
        self.out_proj = nn.Linear(config.width, config.width)
        self.rot_emb: nn.Module | None = None
        if config.positions == "rotary":
            self.rot_emb = RotaryPositions(config.width // config.heads)

    def forward(
        self, x: Float[Tensor, "b l e"], is_real: Bool[Tensor, "b l"] | None
    ) -> Float[Tensor, "b l e"]:
        """Attend to all real tokens; None: there is no padding."""
        b, length = x.shape[:2]  # not unflatten, which the tracing exporter makes static
        q, k, v = (
            projection(x).reshape(b, length, self.heads, -1).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        if self.rot_emb is not None:
            q, k = self.rot_emb(q), self.rot_emb(k)
        mask = None if is_real is None else is_real[:, None, None]
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        projected: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(-2))
        return projected


class LanguageLayer(nn.Module):
    """Attention, then a feed-forward part; both normalise first and add to their input."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        inner = config.feed_forward or 4 * config.width
        self.self_attn = SelfAttention(config)
        self.self_attn_layer_norm = nn.LayerNorm(config.width)
        self.fc1 = nn.Linear(config.width, inner)
        self.fc2 = nn.Linear(inner, config.width)
        self.final_layer_norm = nn.LayerNorm(config.width)

    def forward(
        self, x: Float[Tensor, "b l e"], is_real: Bool[Tensor, "b l"] | None
    ) -> Float[Tensor, "b l e"]:
        """One layer; None: there is no padding."""
        x = x + self.self_attn(self.self_attn_layer_norm(x), is_real)
        fed: Tensor = self.fc2(functional.gelu(self.fc1(self.final_layer_norm(x))))
        return x + fed


class TokenHead(nn.Module):
    """Embeddings -> token logits, with the weights of the token embedding."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        tokens, width = embedding.weight.shape
        self.dense = nn.Linear(width, width)
        self.layer_norm = nn.LayerNorm(width)
        self.weight = embedding.weight
        self.bias = nn.Parameter(torch.zeros(tokens))

    def forward(self, x: Float[Tensor, "b l e"]) -> Float[Tensor, "b l t"]:
        """Logits of every token of the alphabet."""
        hidden = self.layer_norm(functional.gelu(self.dense(x)))
        return functional.linear(hidden, self.weight, self.bias)


class LanguageEmbedder(nn.Module):
    """Tokens -> one embedding per token (the last layer's, normalised)."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(
            config.tokens, config.width, padding_idx=config.padding_token
        )
        self.embed_positions: nn.Module | None = None
        self.emb_layer_norm_before: nn.Module | None = None
        if config.positions == "learned":
            self.embed_positions = LearnedPositions(config)
            if config.input_norm:
                self.emb_layer_norm_before = nn.LayerNorm(config.width)
        self.layers = nn.ModuleList(LanguageLayer(config) for _ in range(config.layers))
        self.emb_layer_norm_after = nn.LayerNorm(config.width)

    def forward(self, tokens: Int[Tensor, "b l"]) -> Float[Tensor, "b l e"]:
        """Embeddings; rows of padding hold nothing meaningful."""
        is_real = tokens != self.config.padding_token
        return self._run_layers(self._embed(tokens, is_real), is_real)

    def embed_unpadded(self, tokens: Int[Tensor, "b l"]) -> Float[Tensor, "b l e"]:
        """Embeddings of rows without padding: the same, and no layer looks for it."""
        return self._run_layers(self._embed(tokens, torch.ones_like(tokens).bool()), None)

    def _run_layers(
        self, x: Float[Tensor, "b l e"], is_real: Bool[Tensor, "b l"] | None
    ) -> Float[Tensor, "b l e"]:
        """All layers and the final layer norm."""
        for layer in self.layers:
            x = layer(x, is_real)
        embeddings: Tensor = self.emb_layer_norm_after(x)
        return embeddings

    def _embed(
        self, tokens: Int[Tensor, "b l"], is_real: Bool[Tensor, "b l"]
    ) -> Float[Tensor, "b l e"]:
        """Embed tokens and, if learned, positions: the input of the first layer."""
        x: Tensor = self.embed_tokens(tokens)
        real = is_real.to(x.dtype)
        if self.config.token_dropout:
            masked = (tokens == self.config.mask_token).to(x.dtype)
            observed = masked.sum(dim=1) / real.sum(dim=1)
            scale = (1.0 - TRAINING_MASK_FRACTION) / (1.0 - observed)
            x = x * ((1.0 - masked) * scale[:, None])[..., None]
        if self.embed_positions is not None:
            x = x + self.embed_positions(is_real)
        if self.emb_layer_norm_before is not None:
            x = self.emb_layer_norm_before(x)
        return x * real[..., None]


class LanguageModel(LanguageEmbedder):
    """An embedder with its token head, which trains it."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__(config)
        self.lm_head = TokenHead(self.embed_tokens)
        # Tied to the logits, embeddings of unit variance would saturate them at the start.
        nn.init.normal_(self.embed_tokens.weight, std=config.width**-0.5)

    def logits(self, tokens: Int[Tensor, "b l"]) -> Float[Tensor, "b l t"]:
        """Token logits at every place, for training on masked residues."""
        predicted: Tensor = self.lm_head(self(tokens))
        return predicted

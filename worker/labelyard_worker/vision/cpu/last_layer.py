"""The last layer of an image tower, for the one token that is pooled.

The towers of the CLIP family pool the first token of what their last layer gives. All
tokens are keys and values of its attention, but queries, projection and feed-forward of
the others are thrown away: in ViT-B a fifteenth of the whole tower.
"""

import logging
from typing import Any, Final

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

log = logging.getLogger(__name__)

# Types of which transformers' forward says ``last_hidden_state[:, 0, :]``, and nothing else.
POOLS_FIRST_TOKEN: Final = frozenset({"altclip", "chinese_clip", "clip", "clipseg", "metaclip_2"})
PARTS: Final = ("layer_norm1", "layer_norm2", "mlp", "self_attn")
PROJECTIONS: Final = ("q_proj", "k_proj", "v_proj", "out_proj")


def shorten_last_layer(model: Any) -> None:
    """Have the image tower of *model* end with a :class:`LastLayer`, if it pools one token."""
    if model.config.model_type not in POOLS_FIRST_TOKEN:
        return
    layers = model.vision_model.encoder.layers
    if not is_known(layers[-1]):
        layer = type(layers[-1]).__name__
        log.warning("last_layer_not_shortened", extra={"fields": {"layer": layer}})
        return
    layers[-1] = LastLayer(layers[-1])


def is_known(layer: nn.Module) -> bool:
    """Return whether *layer* is made of the parts that :class:`LastLayer` calls."""
    return all(hasattr(layer, part) for part in PARTS) and all(
        hasattr(layer.self_attn, projection) for projection in PROJECTIONS
    )


class LastLayer(nn.Module):
    """A pre-norm transformer layer whose only query is the first token.

    Args:
        layer: What it replaces; its parts are kept.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer_norm1 = layer.layer_norm1
        self.self_attn = layer.self_attn
        self.layer_norm2 = layer.layer_norm2
        self.mlp = layer.mlp

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, **_: Any
    ) -> torch.Tensor:
        """Compute the first token of what the whole layer gives.

        Args:
            hidden_states: Shape (batch, tokens, dim).
            attention_mask: As in the layer; image towers have none.

        Returns:
            Shape (batch, 1, dim).
        """
        normed = self.layer_norm1(hidden_states)  # (batch, tokens, dim)
        attended = scaled_dot_product_attention(
            self._heads(self.self_attn.q_proj(normed[:, :1].contiguous())),
            self._heads(self.self_attn.k_proj(normed)),
            self._heads(self.self_attn.v_proj(normed)),
            attn_mask=attention_mask,
            scale=self.self_attn.scale,
        )  # (batch, heads, 1, dim / heads)
        first = hidden_states[:, :1] + self.self_attn.out_proj(attended.transpose(1, 2).flatten(2))
        answer: torch.Tensor = first + self.mlp(self.layer_norm2(first))
        return answer

    def _heads(self, projected: torch.Tensor) -> torch.Tensor:
        """Split (batch, tokens, dim) into (batch, heads, tokens, dim / heads)."""
        return projected.view(*projected.shape[:2], -1, self.self_attn.head_dim).transpose(1, 2)

"""Private operators of torch that ``vision/cpu/packed.py`` uses.

A failure here is no bug yet: an upgrade of torch changed them. Compare with what
``torch/_inductor/fx_passes/mkldnn_fusion.py`` now calls, and carry it over; without them the
image tower stays as transformers made it, 5 to 20 % slower on a CPU.
"""

import pytest
import torch

SCHEMAS = {
    "_reorder_linear_weight": "(Tensor self, int? batch_size=None) -> Tensor Y",
    "_linear_pointwise": (
        "(Tensor X, Tensor W, Tensor? B, str attr, Scalar?[] scalars, str? algorithm) -> Tensor Y"
    ),
    "_is_mkldnn_bf16_supported": "() -> bool _0",
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_an_operator_is_called_as_before(name: str) -> None:
    schema = str(getattr(torch.ops.mkldnn, name).default._schema)

    assert schema == f"mkldnn::{name}{SCHEMAS[name]}"

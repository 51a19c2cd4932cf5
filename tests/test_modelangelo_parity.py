"""Comparison of official graphs with double precision."""

import pytest
import torch
from torch import nn

from angelo_export import modelangelo_parity
from angelo_export.modelangelo_parity import SlabConvolution
from angelo_export.networks.bottleneck import WindowNorm


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (1, 2), (3, 1), (3, 2), (5, 1), (7, 1)])
def test_slabs_give_the_whole_convolution(kernel, stride, monkeypatch):
    torch.manual_seed(0)
    convolution = nn.Conv3d(3, 4, kernel, stride, padding=kernel // 2).double()
    x = torch.randn(2, 3, 9, 8, 10, dtype=torch.float64)
    expected = convolution(x)
    convolution.__class__ = SlabConvolution
    for slab_bytes in (1, 100_000, 10**9):  # layer by layer, a few layers, at once
        monkeypatch.setattr(modelangelo_parity, "SLAB_BYTES", slab_bytes)
        torch.testing.assert_close(convolution(x), expected)


@pytest.mark.parametrize("affine", [True, False])
def test_window_norm_is_instance_norm(affine):
    torch.manual_seed(0)
    norm, expected = WindowNorm(4, affine=affine), nn.InstanceNorm3d(4, affine=affine)
    if affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    expected.load_state_dict(norm.state_dict())
    x = 5 + 3 * torch.randn(2, 4, 6, 7, 8)
    torch.testing.assert_close(norm(x), expected(x), atol=1e-5, rtol=1e-5)

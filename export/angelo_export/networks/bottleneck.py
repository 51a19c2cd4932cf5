"""The residual convolution block shared by the C-alpha network and the density cubes."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

#: Output channels of a block are this many times its inner channels.
EXPANSION = 4


class Bottleneck(nn.Module):
    """Squeeze, 3 x 3 x 3 convolution, expand; instance norm after each; added to the input.

    References
    ----------
    He et al. 2016, doi:10.1109/CVPR.2016.90, with instance for batch norm.
    """

    def __init__(self, n_in: int, inner: int, stride: int = 1, *, affine: bool = False) -> None:
        super().__init__()
        n_out = EXPANSION * inner
        self.conv1 = nn.Conv3d(n_in, inner, 1, bias=False)
        self.bn1 = nn.InstanceNorm3d(inner, affine=affine)
        self.conv2 = nn.Conv3d(inner, inner, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.InstanceNorm3d(inner, affine=affine)
        self.conv3 = nn.Conv3d(inner, n_out, 1, bias=False)
        self.bn3 = nn.InstanceNorm3d(n_out, affine=affine)
        self.shortcut_conv: nn.Module = nn.Identity()
        if stride != 1 or n_in != n_out:
            self.shortcut_conv = nn.Conv3d(n_in, n_out, 1, stride=stride, bias=False)

    def forward(self, x: Float[Tensor, "b c z y x"]) -> Float[Tensor, "b d Z Y X"]:
        """One block; a stride divides the grid."""
        y = functional.relu(self.bn1(self.conv1(x)))
        y = functional.relu(self.bn2(self.conv2(y)))
        return functional.relu(self.bn3(self.conv3(y)) + self.shortcut_conv(x))

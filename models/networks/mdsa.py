"""The published reference model ``mdsa`` (MSDA-CR): residual dense blocks on a grid of three sizes.

The first half of the columns goes down the rows, the second half up again::

    x00 - x01 - x02 - x03 - x04 - x05 ->     full size,   width channels
     |     |     |     ^     ^     ^
    x10 - x11 - x12 - x13 - x14 - x15 ->     half size,   2 width
     |     |     |     ^     ^     ^
    x20 - x21 - x22 - x23 - x24 - x25 ->     quarter,     4 width
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROWS, COLUMNS = 3, 6
TURN = COLUMNS // 2  # first column on the way up
GROWTH = 16  # channels that a dense layer adds
DENSE_LAYERS = 4
REDUCTION = 4  # of the channel attention
DILATIONS = (1, 2, 4, 8, 16, 1)
TOO_SMALL = 4  # longer side of an image of which the third row has one pixel, px


class MDSA(nn.Module):
    """Grid network, ``(B, C, H, W)`` to the same, values in [0, 1]; any size of more than 4 px.

    Blocks of the grid have the key ``row_column`` of where they start (``blocks``, ``down``) or end (``up``).

    Args:
        bands: Bands of the image.
        width: Channels of the first row; the others have twice and four times as many.
    """

    def __init__(self, bands: int, width: int = 16) -> None:
        super().__init__()
        n = [width << row for row in range(ROWS)]
        before, after = range(TURN), range(TURN, COLUMNS)
        self.mixing = nn.Parameter(torch.ones(ROWS, COLUMNS, 2, n[-1]))
        self.enter = _conv(bands, width)
        self.enter_block = AttentionDenseBlock(width)
        grid = [(i, k) for i in range(ROWS) for k in range(COLUMNS - 1)]
        self.blocks = nn.ModuleDict({f"{i}_{k}": AttentionDenseBlock(n[i]) for i, k in grid})
        self.down = nn.ModuleDict({f"{i}_{j}": Down(n[i]) for i in range(ROWS - 1) for j in before})
        self.up = nn.ModuleDict({f"{i}_{j}": Up(n[i + 1]) for i in range(ROWS - 1) for j in after})
        self.exit_block = AttentionDenseBlock(width)
        self.context = nn.ModuleList(_conv(n[-1], n[-1], dilation=d) for d in DILATIONS)
        self.exit_up = nn.ModuleList(Up(n[i + 1]) for i in range(ROWS - 1))
        self.exit_blocks = nn.ModuleList(AttentionDenseBlock(n[i]) for i in range(ROWS - 1))
        self.leave = _conv(width, bands)

    def forward(self, image01: Tensor) -> Tensor:
        """Restore an image ``(B, C, H, W)`` in [0, 1], to the same shape and range.

        Raises:
            ValueError: The image is too small for the instance norm of the third row.
        """
        height, width = image01.shape[-2:]
        if max(height, width) <= TOO_SMALL:
            raise ValueError(f"image is {height} x {width} px, mdsa takes more than {TOO_SMALL}: pad it")
        x0, x1, f = self._ascend(self._descend(self.enter_block(self.enter(image01))))
        for conv in self.context:
            f = F.relu(conv(f))
        f = self.exit_blocks[1](self._mix(1, 0, x1, self.exit_up[1](f, x1)))
        f = self.exit_blocks[0](self._mix(0, 0, self.exit_block(x0), self.exit_up[0](f, x0)))
        return torch.sigmoid(self.leave(f))

    def _descend(self, x00: Tensor) -> list[Tensor]:
        """Return the rows of the last column going down: ``x_ij = k0 block(x_i,j-1) + k1 down(x_i-1,j)``."""
        column = [x00]
        for i in range(1, ROWS):
            column.append(self.down[f"{i - 1}_0"](column[-1]))
        for j in range(1, TURN):
            outputs = self._block_outputs(j, column)
            column = outputs[:1]
            for i in range(1, ROWS):
                column.append(self._mix(i, j, outputs[i], self.down[f"{i - 1}_{j}"](column[-1])))
        return column

    def _ascend(self, column: list[Tensor]) -> list[Tensor]:
        """Return the rows of the last column: ``x_ij = k0 block(x_i,j-1) + k1 up(x_i+1,j)``."""
        for j in range(TURN, COLUMNS):
            outputs = self._block_outputs(j, column)
            column = outputs[-1:]
            for i in range(ROWS - 2, -1, -1):
                column.insert(0, self._mix(i, j, outputs[i], self.up[f"{i}_{j}"](column[0], outputs[i])))
        return column

    def _block_outputs(self, j: int, column: list[Tensor]) -> list[Tensor]:
        return [self.blocks[f"{i}_{j - 1}"](x) for i, x in enumerate(column)]

    def _mix(self, i: int, j: int, a: Tensor, b: Tensor) -> Tensor:
        """Return ``k0 a + k1 b`` with one coefficient per channel.

        Row and column 0 mix the two ways of the exit, and there both find their coefficients in the first
        of the two rows of ``mixing``, one behind the other.
        """
        n = a.shape[1]
        flat = self.mixing[i, j, 0, : 2 * n].view(2, n) if j == 0 else self.mixing[i, j, :, :n]
        k = flat[:, None, :, None, None]
        return k[0] * a + k[1] * b


class Dense(nn.Module):
    """``x + fuse(D(x))``: four convolutions of 16 channels, each on the results of all before it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_conv(channels + GROWTH * k, GROWTH) for k in range(DENSE_LAYERS))
        self.fuse = _conv(channels + GROWTH * DENSE_LAYERS, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to the same shape."""
        features = x
        for layer in self.layers:
            features = torch.cat([features, F.relu(layer(features))], dim=1)
        result: Tensor = x + self.fuse(features)
        return result


class AttentionDenseBlock(nn.Module):
    """A dense block whose result restyles a normalised one, in three ways that two gates mix (RDB).

    With ``out = Dense(x)``, ``n = IN(Dense'(IN(x)))``, and ``mu``, ``sd``, gains, biases taken from ``out``::

        T = n (1 + g_t) + b_t        R = n (1 + g_r) + b_r        G = sd n + mu
        new = R A + (T (1 - B) + G B) (1 - A)        A, B = sigmoid gates of n
        result = x + CA(final([out, new]))
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.content = Dense(channels)
        self.detail = Dense(channels)
        self.style_r = _conv(channels, half)
        self.style_t = _conv(channels, half)
        self.statistics = nn.Linear(half, 2 * channels)
        self.gain_r, self.bias_r = _conv(half, channels), _conv(half, channels)
        self.gain_t, self.bias_t = _conv(half, channels), _conv(half, channels)
        self.gate_a, self.gate_b = _conv(channels, 1), _conv(channels, 1)
        self.final = _conv(2 * channels, channels, 1)
        self.squeeze = _conv(channels, channels // REDUCTION, 1)
        self.excite = _conv(channels // REDUCTION, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to the same shape."""
        content = self.content(x)
        normed = F.instance_norm(self.detail(F.instance_norm(x)))
        h = self.final(torch.cat([content, self._restyle(content, normed)], dim=1))
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(h.mean((2, 3), keepdim=True)))))
        result: Tensor = gate * h + x
        return result

    def _restyle(self, content: Tensor, n: Tensor) -> Tensor:
        style_r, style_t = F.relu(self.style_r(content)), F.relu(self.style_t(content))
        mean, deviation = self.statistics(style_r.mean((2, 3)))[:, :, None, None].chunk(2, dim=1)
        g = deviation * n + mean
        t = n * (1 + self.gain_t(style_t)) + self.bias_t(style_t)
        r = n * (1 + self.gain_r(style_r)) + self.bias_r(style_r)
        a, b = torch.sigmoid(self.gate_a(n)), torch.sigmoid(self.gate_b(n))
        restyled: Tensor = r * a + (t * (1 - b) + g * b) * (1 - a)
        return restyled


class Down(nn.Module):
    """Half the size, twice the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = _conv(channels, channels, stride=2)
        self.conv2 = _conv(channels, 2 * channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, 2C, ceil(H / 2), ceil(W / 2))``."""
        return F.relu(self.conv2(F.relu(self.conv1(x))))


class Up(nn.Module):
    """Twice the size, half the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.deconv = nn.ConvTranspose2d(channels, channels, 3, stride=2, padding=1)
        self.conv = _conv(channels, channels // 2)

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        """Map ``(B, C, h, w)`` to ``(B, C / 2, H, W)``, with H and W of ``like``."""
        return F.relu(self.conv(F.relu(self.deconv(x, output_size=like.shape[-2:]))))


def _conv(channels: int, out: int, kernel: int = 3, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    padding = dilation * (kernel // 2)
    return nn.Conv2d(channels, out, kernel, stride=stride, padding=padding, dilation=dilation)

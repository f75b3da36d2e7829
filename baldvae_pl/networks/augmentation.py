"""Augmentations: float images in [0, 1], shape (n, C, H, W) -> as many, on any device.

They are for training the classifier alone; images are never scored, tested or complemented in any
other than their own form.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["crop", "crop_and_flip"]


def crop(images: Tensor) -> Tensor:
    """Return each image moved by up to an eighth of its size in both directions, on black.

    For 32×32 images this is the usual crop after padding by 4.
    """
    size, _, height, width = images.shape
    down, right = height // 8, width // 8
    padded = F.pad(images, (right, right, down, down))
    # Drawn on the CPU, so that every accelerator sees the same ones.
    rows = torch.randint(2 * down + 1, (size, 1)) + torch.arange(height)
    columns = torch.randint(2 * right + 1, (size, 1)) + torch.arange(width)
    moved = padded[torch.arange(size)[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2)


def crop_and_flip(images: Tensor) -> Tensor:
    """Return each image moved as by `crop`, and mirrored with probability 1/2."""
    moved = crop(images)
    mirrored = (torch.rand(len(images), 1, 1, 1) < 0.5).to(images.device)
    return torch.where(mirrored, moved.flip(-1), moved)

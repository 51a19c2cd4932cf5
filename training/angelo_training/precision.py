"""Which number format the networks train in on a device."""

from contextlib import AbstractContextManager

import torch

from angelo.errors import DeviceError


def autocast_for(device: torch.device) -> AbstractContextManager[None]:
    """Return a context in which torch multiplies matrices in bfloat16, where that is fast.

    That is on CUDA and on CPUs with AVX-512 BF16 instructions; elsewhere the context does
    nothing and all stays in single precision.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=has_fast_bfloat16(device))


def has_fast_bfloat16(device: torch.device) -> bool:
    """Return whether the device has matrix instructions for bfloat16."""
    if device.type == "cpu":
        return bool(torch.cpu.get_capabilities().get("avx512_bf16", False))
    return device.type == "cuda"


def torch_device(name: str) -> torch.device:
    """Return the device of this name.

    Raises
    ------
    DeviceError
        If torch does not know it, or it is not here.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(f"unknown device {name!r}; use cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"training does not run on {name!r}; use cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f"device {name!r} is not here: torch finds "
            f"{torch.cuda.device_count()} CUDA devices; use cpu, or check driver and build"
        )
    return device

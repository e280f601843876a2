"""Every kernel under one name and signature, in modules that a model is handed one of.

`reference` is plain PyTorch and defines what is correct; `cpu` is C++. The module is the interface.
"""

from types import ModuleType


def kernels_for(device: str) -> ModuleType:
    """The kernels for a torch device. Raises ValueError where there are none."""
    if device == "cpu":
        from trackbed.llm.kernels import cpu

        return cpu
    if device.startswith("cuda"):
        from trackbed.llm.kernels import reference

        return reference
    raise ValueError(f"there are no kernels for device {device!r}; there are for: cpu, cuda")

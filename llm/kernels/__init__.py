"""Every kernel under one name, in modules that a model is handed one of.

`reference` is plain PyTorch and defines what is correct, and `plain_pass` composes a pass of it; `cpu` is C++. The
module is the interface: a model needs its `Pass`, and tests hold the kernels to the reference one by one.
"""

from types import ModuleType


def kernels_for(device: str) -> ModuleType:
    """The module for a torch device. Raises ValueError where there are none."""
    if device == "cpu":
        from trackbed.llm.kernels import cpu

        return cpu
    if device.startswith("cuda"):
        from trackbed.llm.kernels import plain_pass

        return plain_pass
    raise ValueError(f"there are no kernels for device {device!r}; there are for: cpu, cuda")

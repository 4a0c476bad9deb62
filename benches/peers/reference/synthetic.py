"""Fills networks with the synthetic weights of synth.py, in parallel and in pieces.

    python synthetic.py PRESET ADAPTER FOLDER [--manifest]
writes the three checkpoint files sd, tasr and stage1 (.safetensors), or only their manifests (.json).
"""
from __future__ import annotations

import json
import math
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

import synth
from networks import PARTS, PRESETS, System

PIECE = 1 << 17


def fill(name: str, out: torch.Tensor) -> None:
    """Overwrites the contiguous float32 `out` with the values of tensor `name`."""
    a, b = synth.affine(name, tuple(out.shape))
    flat = out.view(-1).numpy()
    for start in range(0, flat.size, PIECE):
        piece = flat[start:start + PIECE]
        np.multiply(synth.uniform(name, piece.size, start), a, out=piece)
        piece += b


def tensors(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Checkpoint tensor name -> float32 values"""
    made = {name: torch.empty(shape) for name, shape in shapes.items()}
    largest_first = sorted(made, key=lambda name: -math.prod(shapes[name]))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda name: fill(name, made[name]), largest_first))
    return made


def system(preset: str, adapter: str = "official", parts: tuple[str, ...] | None = None) -> System:
    """A System of the preset with synthetic weights, float32, on the CPU."""
    options = {} if parts is None else {"parts": parts}
    with torch.device("meta"):
        made = System(PRESETS[preset], adapter, **options)
    made.load(tensors(made.shapes()))
    return made.eval()


def main(preset: str, adapter: str, folder: str, *flags: str) -> None:
    with torch.device("meta"):
        whole = System(PRESETS[preset], adapter)
    Path(folder).mkdir(parents=True, exist_ok=True)
    for file in ("sd", "tasr", "stage1"):
        shapes = {prefix + name: tuple(value.shape)
                  for part, (place, prefix) in PARTS.items() if place == file and getattr(whole, part) is not None
                  for name, value in getattr(whole, part).state_dict().items()}
        if "--manifest" in flags:
            Path(folder, f"{file}.json").write_text(json.dumps(shapes, indent=0))
        else:
            from safetensors.torch import save_file

            save_file(tensors(shapes), Path(folder, f"{file}.safetensors"))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""PyTorch timings of the full-size system on synthetic weights; prints one JSON line.

    python bench_torch.py --dtype bf16 --channels-last --compile --steps 20 --batch 1
    python bench_torch.py --dtype bf16 --channels-last --cuda-graphs --no-train
    python bench_torch.py --preset tiny --device cpu --dtype fp32 --steps 2 --repeats 1

All figures are medians in milliseconds. `pipeline` is the whole upscale of a 128x128 image to 512x512: stage
one, VAE encode, text, N steps with guidance as one batch of 2N, VAE decode, colour fix. A part that
fails (out of memory, no compiler) reports its error as a string and the rest goes on. Only the networks that the
chosen parts need are built. `peak_mb` is the most memory of the process, on CUDA of the device.
"""
from __future__ import annotations

import argparse
import contextlib
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from diffusion import Options, SeededNoise, upscale
from networks import PARTS, PRESETS, System
from synthetic import system as synthetic_system
from train import TARGETS, Batch, freeze, losses

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


# The networks that each part runs.
DENOISER = ("controlnet", "unet", "adapters")
NEEDED = {
    "stage1": ("stage1",), "text": ("text",), "vae_encode": ("vae",), "vae_decode": ("vae",),
    "controlnet": ("controlnet",), "unet": DENOISER, "step": DENOISER, "adapters_eager": DENOISER,
    "pipeline": tuple(PARTS),
}


def peak_mb(cuda: bool) -> int | None:
    """The most memory so far, in 10^6 bytes."""
    if cuda:
        return torch.cuda.max_memory_allocated() // 10**6
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 // 10**6 for line in status if line.startswith("VmHWM"))
    except OSError:
        return None


class Replay(nn.Module):
    """Captures `module` in a CUDA graph per input shape and replays it. Outputs are overwritten by the next
    call with the same shapes. Inference only."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module
        self.graphs: dict[tuple, tuple[list[Tensor], torch.cuda.CUDAGraph, object]] = {}

    def forward(self, *inputs: Tensor):
        key = tuple((tuple(x.shape), x.dtype, x.stride()) for x in inputs)
        if key not in self.graphs:
            self.graphs[key] = self.capture(inputs)
        held, graph, outputs = self.graphs[key]
        for place, value in zip(held, inputs):
            place.copy_(value)
        graph.replay()
        return outputs

    def capture(self, inputs: tuple[Tensor, ...]):
        held = [x.clone() for x in inputs]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.module(*held)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = self.module(*held)
        return held, graph, outputs


class Denoiser(nn.Module):
    """ControlNet, adapters and UNet as one module: x, t, context, hint -> noise"""

    def __init__(self, system: System):
        super().__init__()
        self.controlnet, self.unet, self.adapters = system.controlnet, system.unet, system.adapters

    def forward(self, x: Tensor, t: Tensor, context: Tensor, hint: Tensor) -> Tensor:
        return self.unet(x, t, context, self.controlnet(x, hint, t, context), self.adapters)[0]


class Decoder(nn.Module):
    def __init__(self, vae: nn.Module):
        super().__init__()
        self.vae = vae

    def forward(self, z: Tensor) -> Tensor:
        return self.vae.decode(z)


class Encoder(Decoder):
    def forward(self, image: Tensor) -> Tensor:
        return self.vae.encode(image)


def release() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def attempt(work: Callable[[], object]) -> object:
    """The result, or the error as text; memory is given back after a failure."""
    try:
        return work()
    except Exception as error:                                      # noqa: BLE001 - a benchmark goes on
        lines = str(error).splitlines() or [""]
        result = f"{type(error).__name__}: {lines[0][:200]}"
    release()
    return result


class Bench:
    def __init__(self, args: argparse.Namespace):
        self.args = args
        self.device = torch.device(args.device)
        self.dtype = DTYPES[args.dtype]
        self.cuda = self.device.type == "cuda"
        self.config = PRESETS[args.preset]
        if self.cuda:
            torch.backends.cudnn.benchmark = True
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = args.tf32

    def build(self, dtype: torch.dtype, parts: tuple[str, ...] = tuple(PARTS)) -> System:
        torch.manual_seed(0)
        system = synthetic_system(self.args.preset, self.args.adapter, parts)
        system = system.to(self.device, dtype).requires_grad_(False)
        return system.to(memory_format=torch.channels_last) if self.args.channels_last else system

    def layout(self, x: Tensor) -> Tensor:
        return x.contiguous(memory_format=torch.channels_last) if self.args.channels_last and x.dim() == 4 else x

    def randn(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        return self.layout(torch.randn(shape, device=self.device, dtype=dtype or self.dtype))

    def time(self, work: Callable[[], object]) -> float:
        """Median milliseconds over the repeats, after warm-up."""
        for _ in range(self.args.warmup):
            work()
        self.wait_for_gate()
        taken = []
        for _ in range(self.args.repeats):
            if self.cuda:
                start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                start.record()
                work()
                end.record()
                end.synchronize()
                taken.append(start.elapsed_time(end))
            else:
                begin = time.perf_counter()
                work()
                taken.append(1e3 * (time.perf_counter() - begin))
        return round(statistics.median(taken), 3)

    def wait_for_gate(self) -> None:
        """Says that all is compiled, and waits until the file is there: others may use the GPU meanwhile."""
        if self.args.gate and not Path(self.args.gate).exists():
            if self.cuda:
                torch.cuda.synchronize()
            print("ready", file=sys.stderr, flush=True)
            while not Path(self.args.gate).exists():
                time.sleep(0.05)

    def accelerate(self, module: nn.Module) -> nn.Module:
        if self.args.compile:
            return torch.compile(module, mode=self.args.compile_mode)
        return Replay(module) if self.args.cuda_graphs and self.cuda else module

    def inference(self) -> dict[str, object]:
        args, config, side = self.args, self.config, self.args.size
        chosen = args.only.split(",") if args.only else list(NEEDED)
        needed = tuple(part for part in PARTS if any(part in NEEDED[name] for name in chosen))
        system = self.build(self.dtype, needed)
        rows, latent = args.batch, side // 8
        x, hint = (self.randn(2 * rows, config.latent, latent, latent) for _ in range(2))
        t = torch.full((2 * rows,), 500, device=self.device)
        context = self.randn(2 * rows, config.text_length, config.context)
        image, z = self.randn(rows, 3, side, side), self.randn(rows, config.latent, latent, latent)
        low = torch.rand(rows, 3, side // 4, side // 4, device=self.device)
        tokens = torch.randint(1, 400, (1, config.text_length), device=self.device)

        denoiser = self.accelerate(Denoiser(system))
        encoder, decoder = self.accelerate(Encoder(system.vae)), self.accelerate(Decoder(system.vae))
        stage1, text = self.accelerate(system.stage1), self.accelerate(system.text)
        controlnet, unet = self.accelerate(system.controlnet), system.unet
        if args.compile:                        # a CUDA graph here takes tensors only, not a list of residuals
            unet = self.accelerate(unet)
        control = []
        if {"unet", "adapters_eager"} & set(chosen):
            control = [r.clone() for r in system.controlnet(x, hint, t, context)]

        def adapters_alone() -> None:
            embedding = system.unet.embed_time(t)
            joins = [(0, 0), *system.unet.joins]
            for i, ((width, _), residual) in enumerate(zip(joins, reversed(control))):
                decoded = features[i] if width else None
                system.adapters(i, residual, decoded, residual, embedding)

        features = [None] + [self.randn(2 * rows, width, *r.shape[2:])
                             for (width, _), r in zip(system.unet.joins if control else [], reversed(control[:-1]))]

        parts: dict[str, Callable[[], object]] = {
            "stage1": lambda: stage1(self.layout(low.to(self.dtype))),
            "text": lambda: text(tokens),
            "vae_encode": lambda: encoder(image),
            "vae_decode": lambda: decoder(z),
            "controlnet": lambda: controlnet(x, hint, t, context),
            "unet": lambda: unet(x, t, context, control),
            "step": lambda: denoiser(x, t, context, hint),
        }
        if system.adapters is not None:
            parts["adapters_eager"] = adapters_alone
        fast = Accelerated(system, denoiser, encoder, decoder, stage1, text, self.layout)
        options = Options(upscale=4.0, steps=args.steps, cfg=4.5, working_size=side)
        noise = SeededNoise(0)
        drawn: dict[str, Tensor] = {}

        def given(name: str, shape: tuple[int, ...]) -> Tensor:
            if name not in drawn:
                drawn[name] = noise(name, shape).to(self.device)
            return drawn[name]

        parts["pipeline"] = lambda: upscale(fast, low, tokens, tokens, options, given)
        found: dict[str, object] = {name: attempt(lambda: self.time(work)) for name, work in parts.items()
                                    if name in chosen}
        found["peak_mb"] = peak_mb(self.cuda)
        return found

    def training(self, target: str, rematerialise: bool) -> dict[str, object]:
        """One step: losses, backward, AdamW; autocast to the chosen dtype over float32 weights."""
        args, side = self.args, self.args.train_size
        system = self.build(torch.float32)
        parameters = freeze(system, target)
        system.rematerialise(rematerialise)
        update = torch.optim.AdamW(parameters, lr=5e-6, fused=self.cuda)
        rows, shape = args.train_batch, (args.train_batch, self.config.latent, side // 8, side // 8)
        batch = Batch(
            target=self.randn(rows, 3, side, side, dtype=torch.float32).clamp(-1, 1),
            clean=self.randn(rows, 3, side, side, dtype=torch.float32).clamp(0, 1),
            tokens=torch.randint(1, 400, (rows, self.config.text_length), device=self.device),
            t=torch.full((rows,), 100, device=self.device),
            noise=self.randn(*shape, dtype=torch.float32), latent_noise=self.randn(*shape, dtype=torch.float32))
        reduced = self.dtype != torch.float32
        autocast = torch.autocast(self.device.type, self.dtype) if reduced else contextlib.nullcontext()
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()

        def one() -> None:
            with autocast:
                total = losses(system, batch, target, lambda image: image.mean((1, 2, 3)))["total"]
            update.zero_grad(set_to_none=True)
            total.backward()
            update.step()

        return {"ms": self.time(one), "peak_mb": peak_mb(self.cuda)}


class Accelerated(nn.Module):
    """A System whose parts are compiled or captured; feeds the unchanged pipeline."""

    def __init__(self, system: System, denoiser: nn.Module, encoder: nn.Module, decoder: nn.Module,
                 stage1: nn.Module, text: nn.Module, layout: Callable[[Tensor], Tensor]):
        super().__init__()
        self.config, self.system, self.denoiser, self.layout = system.config, system, denoiser, layout
        self.coders, self.first, self.words = (encoder, decoder), stage1, text

    @property
    def vae(self) -> "Accelerated":
        return self

    def encode(self, image: Tensor, noise: Tensor | None = None) -> Tensor:
        assert noise is None
        return self.coders[0](self.layout(image)).clone()

    def decode(self, latent: Tensor) -> Tensor:
        return self.coders[1](self.layout(latent)).clone()

    def stage1(self, low: Tensor) -> Tensor:
        return self.first(self.layout(low)).clone()

    def text(self, tokens: Tensor) -> Tensor:
        return self.words(tokens).clone()

    def denoise(self, x: Tensor, t: Tensor, context: Tensor, hint: Tensor, strength: float) -> tuple[Tensor, list, list]:
        return self.denoiser(self.layout(x), t, context, self.layout(hint)).clone(), [], []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="sd21")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--adapter", choices=("official", "paper", "none"), default="official")
    parser.add_argument("--size", type=int, default=512, help="output side in pixels")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, help="of the CPU; default: one for each core")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--compile-mode", default="default", help="torch.compile mode, e.g. max-autotune")
    parser.add_argument("--cuda-graphs", action="store_true", help="capture eager modules (not with --compile)")
    parser.add_argument("--tf32", action="store_true", help="with fp32: allow TF32 in matmuls and convolutions")
    parser.add_argument("--only", help="time only these inference parts, comma separated, e.g. step,pipeline")
    parser.add_argument("--no-train", action="store_true")
    parser.add_argument("--no-inference", action="store_true")
    parser.add_argument("--gate", help="after a part's warm-up, wait until this file exists")
    parser.add_argument("--checkpointing", choices=("no", "yes", "both"), default="both", help="of training steps")
    parser.add_argument("--train-size", type=int, default=512)
    parser.add_argument("--train-batch", type=int, default=1)
    args = parser.parse_args()
    for name in args.only.split(",") if args.only else ():
        if name not in NEEDED:
            parser.error(f"--only: there is no part {name!r}, choose from {', '.join(NEEDED)}")
    if args.threads:
        torch.set_num_threads(args.threads)
    bench = Bench(args)
    report: dict[str, object] = {
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if bench.cuda else "cpu",
        **{name: value for name, value in vars(args).items() if name != "device"}}

    if not args.no_inference:
        with torch.no_grad():
            report["inference_ms"] = attempt(bench.inference)
    if not args.no_train:
        for target in TARGETS:
            for rematerialise in {"no": (False,), "yes": (True,), "both": (False, True)}[args.checkpointing]:
                name = f"train_{target}" + ("_checkpointed" if rematerialise else "")
                release()
                report[name] = attempt(lambda: bench.training(target, rematerialise))
    print(json.dumps(report))


if __name__ == "__main__":
    main()

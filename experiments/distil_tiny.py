"""Makes the embedded backbone ``tiny``: distils an ImageNet teacher on images we draw ourselves.

    T=path/to/load.py:build_resnet50v2
    python experiments/distil_tiny.py --teacher $T --minutes 34
    python experiments/distil_tiny.py --teacher $T --report --data path/to/data

Three steps, each resumed after a kill from what lies in ``--work``:
1. a principal component analysis of each teacher level, on drawn images;
2. the teacher's compressed maps of ``--images`` drawn images, as float16 memory maps;
3. a student that regresses them, on a cosine schedule over ``--minutes``; ``--out`` is written at
   every checkpoint.

On a busy machine OMP_NUM_THREADS=1 is several times faster than letting two threads wait for each
other.
"""

import argparse
import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from drawn_images import draw
from safetensors.torch import load_file, save_file
from tiny_report import (
    agreement_table,
    detection_table,
    images_per_cpu_second,
    measure_agreement,
    page,
)
from torch import Tensor, nn
from torch.nn import functional

from fewshot_ad.data import load_dataset
from fewshot_ad.parts.backbones import Backbone, load_backbone
from fewshot_ad.parts.tiny import CHANNELS, STRIDES, WEIGHTS, Tiny

SIZE = 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PCA_IMAGES, HELD_OUT = 192, 128
PCA_START, HELD_OUT_START = 2_000_000, 3_000_000  # far from the training images, which count from 0
CHUNK, BATCH = 16, 8
LEARNING_RATE, WEIGHT_DECAY, WARM_UP = 2e-3, 0.02, 0.03
CHECKPOINT_SECONDS = 120.0
FAST = torch.bfloat16


@dataclass(frozen=True)
class Compression:
    """The affine map from one teacher level to the student's target: ``(x - mean) @ basis``."""

    mean: Tensor
    basis: Tensor
    kept: float  # share of the variance

    def __call__(self, maps: Tensor) -> Tensor:
        """[b c h w] to [b h w k]."""
        return (maps.permute(0, 2, 3, 1) - self.mean) @ self.basis


def normalised(images: np.ndarray, device: str) -> Tensor:
    """RGB bytes [b h w 3] to the tensor a backbone eats."""
    tensor = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(v, device=device).view(3, 1, 1) for v in (MEAN, STD))
    return ((tensor - mean) / std).contiguous(memory_format=torch.channels_last)


def teacher_maps(teacher: Backbone, images: np.ndarray, device: str) -> list[Tensor]:
    """The teacher's levels in float32; the pass itself runs in bfloat16, at twice the speed."""
    with torch.inference_mode(), torch.autocast(device.split(":")[0], dtype=FAST):
        return [level.float() for level in teacher(normalised(images, device))]


# ------------------------------------------------------------ 1. compression


def fit_compression(teacher: Backbone, device: str) -> list[Compression]:
    """Principal components of every level over all positions, scaled to unit total variance."""
    products: list[Tensor] = []
    for start in range(PCA_START, PCA_START + PCA_IMAGES, CHUNK):
        images = np.stack([draw(i) for i in range(start, start + CHUNK)])
        for level, maps in enumerate(teacher_maps(teacher, images, device)):
            rows = maps.permute(0, 2, 3, 1).flatten(0, 2)
            rows = rows[:: max(1, 4 // 4**level)]
            rows = torch.cat([rows, torch.ones_like(rows[:, :1])], 1)
            product = (rows.T @ rows).double().cpu()
            if level == len(products):
                products.append(product)
            else:
                products[level] += product
    return [
        compression_of(product, channels)
        for product, channels in zip(products, CHANNELS, strict=True)
    ]


def compression_of(product: Tensor, channels: int) -> Compression:
    """Eigenvectors of the covariance in second moments whose last row and column are the sums."""
    count = product[-1, -1]
    mean = product[-1, :-1] / count
    values, vectors = torch.linalg.eigh(product[:-1, :-1] / count - mean[:, None] * mean)
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    kept = values[:channels].sum()
    basis = vectors[:, :channels] / kept.sqrt()
    return Compression(mean.float(), basis.float(), float(kept / values.sum()))


def load_compression(teacher: Backbone, work: Path, device: str) -> list[Compression]:
    """Fit once, then read from ``work``."""
    path = work / "compression.safetensors"
    if not path.exists():
        fitted = fit_compression(teacher, device)
        tensors = {}
        for level, one in enumerate(fitted):
            tensors |= {f"mean{level}": one.mean, f"basis{level}": one.basis.contiguous()}
            tensors[f"kept{level}"] = torch.tensor(one.kept)
            size = one.basis.shape[1]
            print(f"level {level + 1}: {size} components keep {one.kept:.1%} of the variance")
        save_whole(tensors, path)
    stored = {name: value.to(device) for name, value in load_file(path).items()}
    levels = range(len(CHANNELS))
    return [
        Compression(stored[f"mean{n}"], stored[f"basis{n}"], float(stored[f"kept{n}"]))
        for n in levels
    ]


def save_whole(tensors: dict[str, Tensor], path: Path) -> None:
    """Write beside, then rename: a kill leaves the old file."""
    part = path.with_suffix(".part")
    save_file(tensors, part)
    part.replace(path)


# ------------------------------------------------------------ 2. targets


@dataclass(frozen=True)
class Targets:
    """Drawn images and the teacher's compressed maps of them; the first HELD_OUT never train."""

    images: np.ndarray
    levels: list[np.ndarray]

    @classmethod
    def open(cls, work: Path, count: int) -> "Targets":
        """Open, or make, the memory maps for HELD_OUT + ``count`` images."""
        total = HELD_OUT + count
        shapes = [(total, SIZE // s, SIZE // s, c) for s, c in zip(STRIDES, CHANNELS, strict=True)]
        images = memory_map(work / "images.u8", np.uint8, (total, SIZE, SIZE, 3))
        return cls(
            images,
            [memory_map(work / f"level{n}.f16", np.float16, s) for n, s in enumerate(shapes)],
        )

    def batch(self, chosen: np.ndarray, device: str) -> tuple[Tensor, list[Tensor]]:
        """Normalised images and their targets [b h w c]."""
        chosen = np.sort(chosen)
        levels = [torch.from_numpy(level[chosen]).to(device).float() for level in self.levels]
        return normalised(self.images[chosen], device), levels


def memory_map(path: Path, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    """Grow the file to ``shape`` when it is shorter; what it holds stays."""
    wanted = int(np.prod(shape)) * np.dtype(dtype).itemsize
    with path.open("ab") as file:
        if file.tell() < wanted:
            file.truncate(wanted)
    return np.memmap(path, dtype, "r+", shape=shape)


def image_number(row: int) -> int:
    """Which drawn image lies in a row of the targets."""
    return HELD_OUT_START + row if row < HELD_OUT else row - HELD_OUT


def draw_quietly(number: int) -> np.ndarray:
    """``draw`` for a worker process: one thread each."""
    cv2.setNumThreads(1)
    return draw(number)


def write_targets(
    teacher: Backbone, squeeze: list[Compression], work: Path, count: int, device: str
) -> Targets:
    """Run the teacher over all images without targets; the file ``done`` counts finished rows."""
    targets, done_file = Targets.open(work, count), work / "done"
    done = int(done_file.read_text()) if done_file.exists() else 0
    started, first = time.monotonic(), done
    spawned = multiprocessing.get_context("spawn")  # a fork beside the threads of torch hangs
    with ProcessPoolExecutor(2, mp_context=spawned) as pool:
        while done < len(targets.images):
            rows = range(done, min(done + 4 * CHUNK, len(targets.images)))
            for row, image in zip(
                rows, pool.map(draw_quietly, map(image_number, rows), chunksize=8), strict=True
            ):
                targets.images[row] = image
            for start in range(rows.start, rows.stop, CHUNK):
                part = slice(start, min(start + CHUNK, rows.stop))
                maps = teacher_maps(teacher, targets.images[part], device)
                for level, one, compress in zip(targets.levels, maps, squeeze, strict=True):
                    level[part] = compress(one).half().cpu().numpy()
            done = rows.stop
            done_file.write_text(str(done))
            speed = (done - first) / (time.monotonic() - started)
            print(f"targets {done}/{len(targets.images)}, {speed:.1f} images/s", flush=True)
    return targets


# ------------------------------------------------------------ 3. student


def level_loss(found: Tensor, wanted: Tensor) -> Tensor:
    """Squared distance per position (total variance is 1) plus half of one minus the cosine."""
    distance = (found - wanted).square().sum(-1).mean()
    return distance + 0.5 * (1 - functional.cosine_similarity(found, wanted, dim=-1).mean())


def rate(progress: float) -> float:
    """Linear warm-up, then cosine to zero, over progress in [0, 1]."""
    if progress < WARM_UP:
        return LEARNING_RATE * progress / WARM_UP
    return LEARNING_RATE * 0.5 * (1 + float(np.cos(np.pi * (progress - WARM_UP) / (1 - WARM_UP))))


class Training:
    """A student, its optimizer and how far they are, kept in ``work``."""

    def __init__(self, work: Path, device: str) -> None:
        torch.manual_seed(0)
        self.student = Tiny().to(device, memory_format=torch.channels_last)
        for head in self.student.heads.children():
            for value in head.parameters():
                nn.init.zeros_(value)  # start from the mean of the targets
        self.optimizer = torch.optim.AdamW(
            self.student.parameters(), lr=0.0, weight_decay=WEIGHT_DECAY
        )
        self.file, self.step, self.seconds = work / "student.pt", 0, 0.0
        if self.file.exists():
            state = torch.load(self.file, weights_only=True)
            self.student.load_state_dict(state["student"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.seconds = state["step"], state["seconds"]

    def save(self, out: Path) -> None:
        """Write what a resumption needs, and the student as it is now."""
        state = {"student": self.student.state_dict(), "optimizer": self.optimizer.state_dict()}
        part = self.file.with_suffix(".part")
        torch.save(state | {"step": self.step, "seconds": self.seconds}, part)
        part.replace(self.file)
        export(self.student, out)


def train(targets: Targets, work: Path, out: Path, minutes: float, device: str) -> None:
    """Train for ``minutes`` in all, resumptions included; write the folded student to ``out``."""
    training = Training(work, device)
    order = np.random.Generator(np.random.PCG64(training.step))
    mark, saved, running = time.monotonic(), training.seconds, None
    while training.seconds < 60 * minutes:
        for group in training.optimizer.param_groups:
            group["lr"] = rate(training.seconds / (60 * minutes))
        rows = order.integers(HELD_OUT, len(targets.images), BATCH)
        batch = targets.batch(rows, device)
        losses = train_step(training.student, training.optimizer, *batch)
        running = losses if running is None else 0.98 * running + 0.02 * losses
        training.step, now = training.step + 1, time.monotonic()
        training.seconds, mark = training.seconds + now - mark, now
        if training.seconds - saved > CHECKPOINT_SECONDS:
            saved = training.seconds
            training.save(out)
            spent, shown = training.seconds / 60, running.numpy().round(3)
            print(f"{spent:.1f} min, step {training.step}, loss per level {shown}", flush=True)
    training.save(out)


def train_step(
    student: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, wanted: list[Tensor]
) -> Tensor:
    """One update; returns the loss of each level."""
    student.train()
    with torch.autocast(images.device.type, dtype=FAST):
        found = student(images)
    pairs = zip(found, wanted, strict=True)
    losses = torch.stack([level_loss(f.float().permute(0, 2, 3, 1), w) for f, w in pairs])
    optimizer.zero_grad()
    losses.sum().backward()
    nn.utils.clip_grad_norm_(student.parameters(), 1.0)
    optimizer.step()
    return losses.detach().cpu()


def export(student: Tiny, out: Path) -> None:
    """Write the folded student as float16."""
    folded = Tiny()
    folded.load_state_dict(student.state_dict())
    tensors = {
        name: value.half().contiguous() for name, value in folded.fold().state_dict().items()
    }
    save_whole(tensors, out)


# ------------------------------------------------------------ 4. report


def report(
    teacher: Backbone, squeeze: list[Compression], targets: Targets, work: Path, data: Path
) -> str:
    """Measure what was made, and say it in Markdown."""
    dataset = load_dataset(f"folder:{data}")
    tiny, drawn = load_backbone("tiny"), load_backbone("random:tiny")
    speed, teacher_speed = (images_per_cpu_second(net) for net in (tiny, teacher))

    def compressed(images: Tensor) -> list[Tensor]:
        pairs = zip(squeeze, teacher(images), strict=True)
        return [compress(maps).permute(0, 3, 1, 2) for compress, maps in pairs]

    images, wanted = targets.batch(np.arange(HELD_OUT), "cpu")
    rows = {
        name: [
            measure_agreement(maps.permute(0, 2, 3, 1), target)
            for maps, target in zip(net(images), wanted, strict=True)
        ]
        for name, net in {"tiny": tiny, "random": drawn}.items()
    }
    networks = {"teacher": teacher, "compressed": compressed, "tiny": tiny, "random": drawn}
    state = torch.load(work / "student.pt", weights_only=True)
    return page(
        agreement_table(rows),
        detection_table(dataset, networks),
        parameters=tiny.parameters / 1e6,
        size=WEIGHTS.stat().st_size / 1e6,
        digest=tiny.digest,
        teacher=Path(teacher.name).name,
        data="path/to/data",
        kept=", ".join(f"{one.kept:.0%}" for one in squeeze),
        images=len(targets.images) - HELD_OUT,
        steps=state["step"],
        batch=BATCH,
        minutes=state["seconds"] / 60,
        speed=speed,
        teacher_speed=teacher_speed,
        held_out=HELD_OUT,
    )


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    work = Path(tempfile.gettempdir()) / "distil_tiny"
    parser.add_argument("--teacher", required=True, help="any name that the backbone door takes")
    parser.add_argument("--weights-dir", type=Path, help="weights of a teacher from timm")
    parser.add_argument("--work", type=Path, default=work, help="what a resumption needs")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="the student's weights")
    parser.add_argument("--images", type=int, default=1792, help="drawn images to train on")
    parser.add_argument("--minutes", type=float, default=34.0, help="of training, resumptions too")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--report", action="store_true", help="measure tiny, write docs/tiny.md")
    parser.add_argument("--data", type=Path, help="real classes in MVTec layout, for --report")
    options = parser.parse_args()
    if options.report and options.data is None:
        parser.error("--report needs --data")
    return options


def main() -> None:
    """Compress, write targets and train, or report."""
    options = parse()
    options.work.mkdir(parents=True, exist_ok=True)
    teacher = load_backbone(options.teacher, weights_dir=options.weights_dir, device=options.device)
    squeeze = load_compression(teacher, options.work, options.device)
    targets = write_targets(teacher, squeeze, options.work, options.images, options.device)
    if options.report:
        text = report(teacher, squeeze, targets, options.work, options.data)
        (Path(__file__).parents[1] / "docs" / "tiny.md").write_text(text)
    else:
        train(targets, options.work, options.out, options.minutes, options.device)


if __name__ == "__main__":
    main()

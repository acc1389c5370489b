"""The service under load: requests a second, latency, memory, and what HTTP adds to judging.

    python benchmarks/service.py                 # 1, 8 and 50 clients, 10,000 requests in all
    python benchmarks/service.py --requests 600 --size 112

The service runs as people run it, in a process of its own; clients are threads of this one, each on
one connection. Its processor time per request is told beside that of ``predict`` in a plain loop,
since a busy machine changes it least. Every score must be that of ``predict``, to the bit.
"""

import argparse
import http.client
import io
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from measuring import machine
from PIL import Image

from fewshot_ad.api import Preprocess
from fewshot_ad.data import load_dataset
from fewshot_ad.inspection import Inspector

CLIENTS = (1, 8, 50)
WARM_UP = 500
PHOTOS = 20
MARK = "photo"
KIND = {"Content-Type": f"multipart/form-data; boundary={MARK}"}


class Asked(NamedTuple):
    """A photo as it is sent, and the score that it must get."""

    body: bytes
    score: float


class Heard(NamedTuple):
    """What came of one request."""

    seconds: float
    is_right: bool


@dataclass(frozen=True)
class Server:
    """A running service."""

    host: str

    def counted(self, name: str) -> float:
        """A value of ``/metrics``."""
        with closing(http.client.HTTPConnection(self.host)) as connection:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        (value,) = re.findall(rf"^{re.escape(name)} (.*)$", text, re.MULTILINE)
        return float(value)

    def ask(self, work: Sequence[Asked]) -> list[Heard]:
        """One client: a request after the other on one connection."""
        found: list[Heard] = []
        with closing(http.client.HTTPConnection(self.host, timeout=300)) as connection:
            for asked in work:
                start = time.perf_counter()
                connection.request("POST", "/predict", asked.body, KIND)
                response = connection.getresponse()
                answer = json.load(response)
                seconds = time.perf_counter() - start
                is_right = response.status == 200 and answer["results"][0]["score"] == asked.score
                found.append(Heard(seconds, is_right))
        return found


@contextmanager
def serving(part: Path) -> Iterator[Server]:
    """The service in a process of its own."""
    command = [sys.executable, "-m", "fewshot_ad", "serve", str(part), "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"}
    ) as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        found = next(match for line in lines if (match := re.search(r"http://([^/]+)/", line)))
        try:
            yield Server(found[1])
        finally:
            process.terminate()


def encoded(pixels: np.ndarray) -> bytes:
    """A body with one photo as PNG."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    head = f'--{MARK}\r\nContent-Disposition: form-data; name="images"; filename="x.png"\r\n\r\n'
    return head.encode() + content.getvalue() + f"\r\n--{MARK}--\r\n".encode()


def load(server: Server, work: Sequence[Asked], clients: int) -> str:
    """A row of the table: so many clients share the work."""
    cpu, start = server.counted("process_cpu_seconds_total"), time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        heard = [one for each in pool.map(server.ask, _shares(work, clients)) for one in each]
    wall = time.perf_counter() - start
    cpu = server.counted("process_cpu_seconds_total") - cpu
    wrong = len(work) - sum(one.is_right for one in heard)
    times = statistics.quantiles([one.seconds for one in heard], n=20)
    rss = server.counted("process_resident_memory_bytes") / 2**20
    return (
        f"| {clients} | {len(work)} | {wrong} | {len(work) / wall:.1f} | {times[9] * 1e3:.0f} | "
        f"{times[18] * 1e3:.0f} | {cpu / len(work) * 1e3:.1f} | {rss:.0f} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--target-class", default="screw")
    given = parser.parse_args()
    inspector, photos = _drawn(given.target_class, given.size)
    start = time.process_time()
    scores = [inspector.predict(each)[0].score for each in photos]
    alone = (time.process_time() - start) / len(photos)
    asked = [Asked(encoded(each), score) for each, score in zip(photos, scores, strict=True)]
    print("\n".join(machine()))
    print(f"- predict in a loop: {alone * 1e3:.1f} ms of processor time per photo\n")
    print("| clients | requests | lost or wrong | requests/s | p50 ms | p95 ms | CPU ms | RSS MB |")
    print("| --- " * 8 + "|")
    with tempfile.TemporaryDirectory() as folder, _saved(inspector, Path(folder)) as server:
        for clients, count in _rounds(given.requests):
            work = [asked[number % PHOTOS] for number in range(count)]
            print(load(server, work, clients), flush=True)


def _drawn(target_class: str, size: int) -> tuple[Inspector, list[np.ndarray]]:
    """A part with four normals, and photos, the first of which have been judged once."""
    dataset = load_dataset("synthetic")
    normals = [dataset.read_image(each) for each in dataset.train(target_class)[:4]]
    inspector = Inspector.from_normals(normals, preprocess=Preprocess(size=size))
    photos = [dataset.read_image(each) for each in dataset.test(target_class)[:PHOTOS]]
    inspector.predict(photos)
    return inspector, photos


@contextmanager
def _saved(inspector: Inspector, folder: Path) -> Iterator[Server]:
    inspector.save(folder / "part.fsad")
    with serving(folder / "part.fsad") as server:
        yield server


def _rounds(requests: int) -> Iterator[tuple[int, int]]:
    """First a warm-up; most of the work goes to most clients, for the sake of memory."""
    yield 8, min(WARM_UP, requests)
    for clients in CLIENTS[:-1]:
        yield clients, max(PHOTOS, requests // 20)
    for _ in range(2):
        yield CLIENTS[-1], requests * 9 // 20


def _shares(work: Sequence[Asked], clients: int) -> list[Sequence[Asked]]:
    return [work[number::clients] for number in range(clients)]


if __name__ == "__main__":
    main()

"""What a server counts, in Prometheus' text format."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from residuum.inference.serve.decoders import Decoders
from residuum.inference.serve.gate import Gate

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter("residuum_requests", "Requests answered.", ["path", "status"], registry=registry)
        self._seconds = Histogram(
            "residuum_request_seconds", "From a request to its answer.", ["path"], buckets=_SECONDS, registry=registry
        )
        self._images = Counter("residuum_images", "Images answered.", ["model", "outcome"], registry=registry)
        self._cancelled = Counter("residuum_cancelled", "Requests whose client went away.", registry=registry)
        self._batches = Histogram(
            "residuum_batch_images", "Images computed together.", buckets=_SIZES, registry=registry
        )
        self._computing = Counter("residuum_computing_seconds", "Seconds of computing batches.", registry=registry)
        self._reloads = Counter("residuum_reloads", "Models opened anew.", ["model", "outcome"], registry=registry)

    def watch(self, gate: Gate, decoders: Decoders) -> None:
        """Show what these count by themselves."""
        gauges = {
            "residuum_requests_inside": ("Requests being answered.", lambda: gate.requests),
            "residuum_images_waiting": ("Images not yet answered.", lambda: gate.images),
            "residuum_bytes_held": ("Bytes of request bodies in memory.", lambda: gate.bytes),
            "residuum_decoders_replaced": ("Decoding processes that died or hung.", lambda: decoders.replaced),
        }
        for name, (words, read) in gauges.items():
            Gauge(name, words, registry=self._registry).set_function(read)

    def answered(self, path: str, status: int, seconds: float) -> None:
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def images(self, model: str, outcome: str, count: int) -> None:
        """outcome: "classified" or "bad"."""
        self._images.labels(model, outcome).inc(count)

    def cancelled(self) -> None:
        self._cancelled.inc()

    def computed(self, images: int, seconds: float) -> None:
        self._batches.observe(images)
        self._computing.inc(seconds)

    def reloaded(self, model: str, outcome: str) -> None:
        """outcome: "done" or "refused"."""
        self._reloads.labels(model, outcome).inc()

    def text(self) -> bytes:
        return generate_latest(self._registry)

"""An HTTP proxy in front of an S3 server that fails, or drips, for given buckets."""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

from tests.support.answering import answering

DRIP_EVERY_S = 0.5


class FaultyS3:
    """The proxy's faults; change them at any time.

    Attributes:
        failing: Buckets that are answered with 500.
        failing_keys: Keys that are answered with 500.
        dripping: Buckets whose objects come at a byte at a time, and never end.
        failed: Requests that were answered with 500.
        is_over: Ends what drips.
    """

    def __init__(self, target_port: int) -> None:
        self.failing: set[str] = set()
        self.dripping: set[str] = set()
        self.failing_keys: set[str] = set()
        self.failed = 0
        self.is_over = threading.Event()
        self._target_port = target_port

    def __call__(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        bucket = request.path.split("/")[1].partition("?")[0]
        key = request.path.rpartition("/")[2].partition("?")[0]
        if bucket in self.failing or key in self.failing_keys:
            self.failed += 1
            request.send_response(500)
            request.send_header("Content-Length", "0")
            request.end_headers()
        elif bucket in self.dripping:
            self._drip(request)
        else:
            self._forward(request)

    def _drip(self, request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("ETag", '"1"')
        request.send_header("Last-Modified", "Mon, 23 Nov 2026 00:00:00 GMT")
        request.send_header("Content-Length", "100000")
        request.end_headers()
        while not self.is_over.wait(DRIP_EVERY_S):
            request.wfile.write(b".")

    def _forward(self, request: BaseHTTPRequestHandler) -> None:
        """Send the request on as it is, the signed Host header included."""
        if request.headers.get("Expect"):
            request.send_response_only(100)
            request.end_headers()
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        connection = http.client.HTTPConnection("127.0.0.1", self._target_port, timeout=30)
        try:
            connection.putrequest(
                request.command, request.path, skip_host=True, skip_accept_encoding=True
            )
            for name, value in request.headers.items():
                if name.lower() != "expect":
                    connection.putheader(name, value)
            connection.endheaders(body or None)
            answer = connection.getresponse()
            payload = answer.read()
            request.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    request.send_header(name, value)
            length = answer.getheader("Content-Length") if request.command == "HEAD" else None
            request.send_header("Content-Length", length or str(len(payload)))
            request.end_headers()
            request.wfile.write(payload)
        finally:
            connection.close()


@contextmanager
def faulty_s3(target_port: int) -> Iterator[tuple[FaultyS3, int]]:
    """Run the proxy, and give its port; GET, HEAD and PUT pass."""
    faults = FaultyS3(target_port)
    with answering(faults) as port:
        try:
            yield faults, port
        finally:
            faults.is_over.set()

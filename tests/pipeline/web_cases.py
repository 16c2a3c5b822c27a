"""A real server of a folder, for scenes at addresses."""

import http.server
import re
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote


class Server(http.server.BaseHTTPRequestHandler):
    """Ranges, an ETag, a count of what was sent, and a connection that breaks after some bytes."""

    folder, sent, breaks = Path(), [], []

    def do_GET(self):
        self._answer(body=True)

    def do_HEAD(self):
        self._answer(body=False)

    def _answer(self, body):
        path = self.folder / unquote(self.path.partition("?")[0]).lstrip("/")
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        etag = f'"{hash(content)}"'
        asked = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        partly = asked is not None and self.headers.get("If-Range", etag) == etag
        first = int(asked[1]) if partly else 0
        last = min(int(asked[2]), len(content) - 1) if partly and asked[2] else len(content) - 1
        self.send_response(206 if partly else 200)
        self.send_header("ETag", etag)
        if partly:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        if body:
            end = self.breaks.pop(0) if self.breaks else last + 1
            self.sent.append((self.path, len(content[first:end])))
            self.wfile.write(content[first:end])

    def log_message(self, *_):
        pass


@contextmanager
def serving(folder):
    """Serve a folder, for a ``with``: ``sent`` has what was sent, ``address`` where it is."""
    handler = type("Handler", (Server,), {"folder": folder, "sent": [], "breaks": []})
    handler.folder.mkdir()
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    handler.place = f"127.0.0.1:{running.server_port}"
    handler.address = f"http://{handler.place}"
    try:
        yield handler
    finally:
        running.shutdown()
        running.server_close()
        thread.join()


@contextmanager
def serving_apart(folder):
    """Serve a folder from another process, for a ``with``, to GDAL: it keeps Python waiting in this one.

    Yields its address.
    """
    folder.mkdir()
    with subprocess.Popen([sys.executable, __file__, folder], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


if __name__ == "__main__":
    Server.folder = Path(sys.argv[1])
    apart = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    print(apart.server_port, flush=True)
    apart.serve_forever()

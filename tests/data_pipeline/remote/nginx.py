"""A real nginx on 127.0.0.1."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

CONFIG = """
daemon off; worker_processes 1; error_log {folder}/error.log; pid {folder}/pid;
events {{ worker_connections 64; }}
http {{
  access_log {folder}/access.log combined;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  limit_req_zone $binary_remote_addr zone=slow:1m rate=5r/s;
  server {{ listen 127.0.0.1:{port}; root {root}; {rules} }}
}}
"""


@contextmanager
def nginx(root: Path, folder: Path, rules: str = "") -> Iterator[str]:
    """Serves ``root``; gives its address. Skips the test where nginx is not installed, which CI does not allow."""
    program = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if program is None:
        assert not os.environ.get("CI"), "nginx is not installed: apt-get install nginx-light"
        pytest.skip("nginx is not installed (apt-get install nginx-light)")
    folder.mkdir()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    text = CONFIG.format(folder=folder, root=root, port=port, rules=rules)
    # Its workers read what only the user who runs the tests may read.
    (folder / "conf").write_text(("user root;" if os.getuid() == 0 else "") + text)
    process = subprocess.Popen([program, "-c", folder / "conf", "-e", folder / "error.log"])
    try:
        deadline = time.monotonic() + 10
        while not listening(port):
            assert process.poll() is None, (folder / "error.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def listening(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0

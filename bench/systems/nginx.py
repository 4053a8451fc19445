"""nginx as a reverse proxy that parses no bodies: the floor of what a hop costs."""

import os
import shutil
import subprocess
from pathlib import Path

from bench.load import Target
from bench.systems.installation import run_installer
from bench.systems.system import Launch, Unavailable

# proxy_buffering off: a stream must leave as it comes. keepalive_requests: the default closes after 1,000.
_CONFIGURATION = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr warn;
worker_processes 1;
{user}
events {{ worker_connections 1024; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream mock {{
        server 127.0.0.1:{upstream_port};
        keepalive 128;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://mock;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }}
    }}
}}
"""


def _find() -> str | None:
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


class Nginx:
    """The distribution's package; installed only when we are root, otherwise skipped."""

    name = "nginx"

    def install(self) -> str:
        if _find() is None:
            if os.geteuid() != 0:
                raise Unavailable("nginx is not installed and only root can install it: apt-get install nginx-light")
            run_installer(["apt-get", "install", "-y", "--no-install-recommends", "nginx-light"], "nginx")
        printed = subprocess.run([self._program(), "-v"], capture_output=True, text=True, timeout=10, check=True)
        return printed.stderr.strip().rpartition("/")[2]

    def _program(self) -> str:
        program = _find()
        if program is None:
            raise Unavailable("nginx was installed but is nowhere to be found")
        return program

    def launch(self, folder: Path, port: int, upstream_port: int) -> Launch:
        # Root's worker would become another user who may not enter our folder.
        user = "user root;" if os.geteuid() == 0 else ""
        file = folder / "nginx.conf"
        file.write_text(_CONFIGURATION.format(folder=folder, user=user, port=port, upstream_port=upstream_port))
        return Launch((self._program(), "-p", str(folder), "-e", "stderr", "-c", str(file)), Target(port))

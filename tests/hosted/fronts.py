"""Configurations of what stands before a hosted endpoint: nginx as Cloud Run, HAProxy for plain Docker clients."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.contract.connect_certificates import certificate

_NGINX = """
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/nginx-error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {directory}/nginx-body;
    proxy_temp_path {directory}/nginx-proxy;
    fastcgi_temp_path {directory}/nginx-fastcgi;
    uwsgi_temp_path {directory}/nginx-uwsgi;
    scgi_temp_path {directory}/nginx-scgi;
    # Upgrades to websockets and to nothing else.
    map $http_upgrade $websocket {{ default ""; websocket websocket; }}
    map $http_upgrade $passed {{ default ""; websocket upgrade; }}
    upstream planes {{
{servers}
    }}
    server {{
        listen 127.0.0.1:{port};
        client_max_body_size 32m;
        location / {{
            proxy_pass http://planes;
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Upgrade $websocket;
            proxy_set_header Connection $passed;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_request_buffering off;
            proxy_buffering off;
            proxy_read_timeout 1h;
            proxy_next_upstream error;
        }}
    }}
}}
"""

_HAPROXY = """
global
    maxconn 1000
defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    retries 3
    option redispatch
frontend docker
    bind 127.0.0.1:{port} ssl crt {directory}/haproxy.pem
    default_backend gateways
backend gateways
    balance roundrobin
{servers}
"""


def nginx(directory: Path, port: int, planes: Sequence[str]) -> list[str]:
    """Writes its configuration; the command."""
    servers = "\n".join(f"        server {address} max_fails=0;" for address in planes)
    path = directory / "nginx.conf"
    path.write_text(_NGINX.format(directory=directory, port=port, servers=servers))
    return ["nginx", "-e", str(directory / "nginx-error.log"), "-p", str(directory), "-c", str(path)]


def haproxy(directory: Path, port: int, gateways: Sequence[str]) -> list[str]:
    """Writes its configuration, with `ca.pem` for its clients in the folder `tls`; the command."""
    tls = directory / "tls"
    tls.mkdir()
    certificate(tls)
    (tls / "cert.pem").rename(tls / "ca.pem")
    (directory / "haproxy.pem").write_bytes((tls / "ca.pem").read_bytes() + (tls / "key.pem").read_bytes())
    (tls / "key.pem").unlink()
    servers = "\n".join(f"    server gateway{n} {address}" for n, address in enumerate(gateways))
    path = directory / "haproxy.cfg"
    path.write_text(_HAPROXY.format(directory=directory, port=port, servers=servers))
    return ["haproxy", "-db", "-f", str(path)]

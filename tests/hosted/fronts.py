"""Configurations of what stands before a hosted endpoint: nginx as Cloud Run, HAProxy for TLS and Docker clients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.contract.client_authority import Authority
from tests.contract.connect_certificates import certificate
from tests.free_ports import free_port
from tests.hosted.process import program

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
    proxy_http_version 1.1;
    proxy_set_header Host $http_host;
    proxy_set_header Upgrade $websocket;
    proxy_set_header Connection $passed;
    proxy_set_header X-Forwarded-For $remote_addr;
    proxy_request_buffering off;
    proxy_buffering off;
    proxy_read_timeout 1h;
    proxy_next_upstream error;
    # Cloud Run takes bodies of 32 MiB over HTTP/1.1, and any over HTTP/2.
    server {{
        listen 127.0.0.1:{http1};
        client_max_body_size 32m;
        location / {{ proxy_pass http://planes; }}
    }}
    server {{
        listen 127.0.0.1:{http2} http2;
        client_max_body_size 0;
        location / {{ proxy_pass http://planes; }}
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
frontend public
    bind 127.0.0.1:{public} ssl crt {directory}/haproxy.pem alpn h2,http/1.1
    use_backend http2 if {{ ssl_fc_alpn -i h2 }}
    default_backend http1
backend http1
    server front {http1}
backend http2
    server front {http2}
frontend docker
    bind 127.0.0.1:{docker} ssl crt {directory}/haproxy.pem ca-file {directory}/client-ca.pem verify optional
    default_backend gateways
backend gateways
    balance roundrobin
{servers}
"""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where what stands before the endpoint listens, on loopback."""

    public: int = field(default_factory=free_port)
    """TLS: what users are told."""
    docker: int = field(default_factory=free_port)
    """TLS: Docker clients without a connector."""
    limited: int = field(default_factory=free_port)
    """What comes over HTTP/1.1, before the limit on a request's length."""
    http1: int = field(default_factory=free_port)
    http2: int = field(default_factory=free_port)


def nginx(directory: Path, ports: Ports, planes: Sequence[str]) -> list[str]:
    """Writes its configuration; the command."""
    servers = "\n".join(f"        server {address} max_fails=0;" for address in planes)
    path = directory / "nginx.conf"
    path.write_text(_NGINX.format(directory=directory, http1=ports.http1, http2=ports.http2, servers=servers))
    return [
        program("nginx") or "nginx",
        "-e",
        str(directory / "nginx-error.log"),
        "-p",
        str(directory),
        "-c",
        str(path),
    ]


def haproxy(directory: Path, ports: Ports, gateways: Sequence[str], certified: Sequence[str]) -> list[str]:
    """Writes its configuration, `ca.pem` for its clients in the folder `tls`, and for each common name of `certified`
    the folder `tls-NAME` with a client certificate besides; the command."""
    tls = directory / "tls"
    tls.mkdir()
    certificate(tls)
    (tls / "cert.pem").rename(tls / "ca.pem")
    (directory / "haproxy.pem").write_bytes((tls / "ca.pem").read_bytes() + (tls / "key.pem").read_bytes())
    (tls / "key.pem").unlink()
    clients = Authority()
    (directory / "client-ca.pem").write_bytes(clients.pem)
    for name in certified:
        held = directory / f"tls-{name}"
        held.mkdir()
        (held / "ca.pem").write_bytes((tls / "ca.pem").read_bytes())
        for file, pem in zip(("cert.pem", "key.pem"), clients.issue(name), strict=True):
            (held / file).write_bytes(pem)
    servers = "\n".join(f"    server gateway{n} {address} send-proxy-v2-ssl-cn" for n, address in enumerate(gateways))
    path = directory / "haproxy.cfg"
    places = {"http1": f"127.0.0.1:{ports.limited}", "http2": f"127.0.0.1:{ports.http2}"}
    path.write_text(
        _HAPROXY.format(directory=directory, public=ports.public, docker=ports.docker, servers=servers, **places)
    )
    return [program("haproxy") or "haproxy", "-db", "-f", str(path)]

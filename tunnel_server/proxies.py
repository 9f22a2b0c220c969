"""Configurations of balancers in front of several nodes, made from the list of nodes. Pure: text in, text out.

The rule is the same in each language: who creates a tunnel goes to any node that is ready; who joins one goes to the
node that the first byte of the routing id names, ready or not, because a node that drains still has tunnels; everything
else goes to any node, which then answers as a relay does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunnel_server.routing import NODES

_NODE = re.compile(
    r"(?P<name>[A-Za-z][A-Za-z0-9_-]*)=(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):(?P<port>\d{1,5}),(?P<id>\d{1,3})"
    r"(,(?P<admin>\d{1,5}))?",
    re.ASCII,
)
_CONNECT_TIMEOUT = 5  # s
_HEAD_TIMEOUT = 10  # s; as long as the relay itself allows
_TUNNEL_TIMEOUT = 200  # s of silence; above the relay's own 180, so that the relay is who says why
_NO_BOUND = 1_000_000  # Envoy's own bounds are 1024 tunnels and 3 retries at once; the relay has bounds that say why


@dataclass(frozen=True, slots=True)
class Node:
    """One machine of the cluster. `number`: its byte of the routing id; `admin`: port of /readyz, None: not asked."""

    name: str
    host: str
    port: int
    number: int
    admin: int | None

    @property
    def path_pattern(self) -> str:
        """Regular expression of the paths whose tunnels live here, for a comparison that ignores case."""
        return f"^/cable/connect/{self.number:02x}[0-9a-f]{{4}}/"


@dataclass(frozen=True, slots=True)
class Front:
    """Where the balancer listens. `certificate`: PEM file with chain and key; None: plain."""

    host: str
    port: int
    certificate: str | None


def parse_node(text: str) -> Node:
    """Node from ``NAME=HOST:PORT,ID[,ADMIN-PORT]``; an IPv6 address stands in brackets.

    Raises:
        ValueError: what is wrong with it.
    """
    match = _NODE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text} is not NAME=HOST:PORT,ID or NAME=HOST:PORT,ID,ADMIN-PORT")
    ports = [int(match[group]) for group in ("port", "admin") if match[group] is not None]
    if not all(0 < port < 1 << 16 for port in ports):
        raise ValueError(f"{text} has a port that is not in the range 1 to 65535")
    number = int(match["id"])
    if number >= NODES:
        raise ValueError(f"node id {number} is not in the range 0 to {NODES - 1}")
    return Node(match["name"], match["host"], ports[0], number, ports[1] if len(ports) > 1 else None)


def check_nodes(nodes: Sequence[Node]) -> None:
    """Refuse a list that cannot work.

    Raises:
        ValueError: no node at all, or two with one name, one address or one id.
    """
    if not nodes:
        raise ValueError("there is no node")
    for what, values in (
        ("name", [node.name for node in nodes]),
        ("id", [str(node.number) for node in nodes]),
        ("address", [f"{node.host}:{node.port}" for node in nodes]),
    ):
        for value in values:
            if values.count(value) > 1:
                raise ValueError(f"two nodes have the {what} {value}")


def haproxy(nodes: Sequence[Node], front: Front) -> str:
    """For HAProxy 2.4 or newer. Tells the relay the client's address with PROXY v2."""
    bind = f"{front.host}:{front.port}"
    if front.certificate is not None:
        bind += f" ssl crt {front.certificate} alpn http/1.1"
    lines = [
        "# Made by tunnel-server proxy-config haproxy. No log: its lines would hold tunnel ids and addresses.",
        "defaults",
        "    mode http",
        f"    timeout connect {_CONNECT_TIMEOUT}s",
        f"    timeout http-request {_HEAD_TIMEOUT}s",
        "    timeout client 30s",
        "    timeout server 30s",
        f"    timeout tunnel {_TUNNEL_TIMEOUT}s",
        "    timeout client-fin 10s",
        "    timeout server-fin 10s",
        "    timeout check 2s",
        "",
        "frontend relay",
        f"    bind {bind}",
        *(f"    use_backend node-{node.name} if {{ path -m reg -i {node.path_pattern} }}" for node in nodes),
        "    default_backend ready",
        "",
        "# A node that drains answers 503, and the next one is asked; the phone notices nothing.",
        "backend ready",
        "    balance roundrobin",
        "    option httpchk GET /readyz",
        "    retries 3",
        "    option redispatch 1",
        "    retry-on conn-failure empty-response 503",
        "    default-server inter 1s fall 2 rise 1",
    ]
    for node in nodes:
        check = f" check port {node.admin}" if node.admin is not None else ""
        lines.append(f"    server {node.name} {node.host}:{node.port} send-proxy-v2{check}")
    for node in nodes:
        lines += ["", f"backend node-{node.name}", f"    server {node.name} {node.host}:{node.port} send-proxy-v2"]
    return "\n".join(lines) + "\n"


def nginx(nodes: Sequence[Node], front: Front) -> str:
    """For the ``http`` block of nginx 1.18 or newer, which tells the relay the client's address in X-Forwarded-For."""
    tls = " ssl" if front.certificate is not None else ""
    lines = [
        "# Made by tunnel-server proxy-config nginx, for the http block. No log: its lines would hold tunnel ids.",
        "# nginx has no health check of its own: a node that drains answers 503, and the next one is asked.",
        'map $http_upgrade $relay_connection { default upgrade; "" close; }',
        "upstream relay_ready {",
        *(f"    server {node.host}:{node.port} max_fails=1 fail_timeout=5s;" for node in nodes),
        "}",
        *(f"upstream relay_node_{node.name} {{ server {node.host}:{node.port}; }}" for node in nodes),
        "server {",
        f"    listen {_nginx_host(front)}{front.port}{tls};",
    ]
    if front.certificate is not None:
        lines += [f"    ssl_certificate {front.certificate};", f"    ssl_certificate_key {front.certificate};"]
    lines += [
        "    access_log off;",
        "    error_log stderr crit;",
        f"    client_header_timeout {_HEAD_TIMEOUT}s;",
        "    proxy_http_version 1.1;",
        "    proxy_set_header Host $host;",
        "    proxy_set_header Upgrade $http_upgrade;",
        "    proxy_set_header Connection $relay_connection;",
        "    proxy_set_header X-Forwarded-For $remote_addr;",
        f"    proxy_connect_timeout {_CONNECT_TIMEOUT}s;",
        f"    proxy_read_timeout {_TUNNEL_TIMEOUT}s;",
        f"    proxy_send_timeout {_TUNNEL_TIMEOUT}s;",
    ]
    for node in nodes:
        lines.append(f'    location ~* "{node.path_pattern}" {{ proxy_pass http://relay_node_{node.name}; }}')
    lines += [
        "    location / {",
        "        proxy_pass http://relay_ready;",
        "        proxy_next_upstream error timeout http_503;",
        "    }",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _nginx_host(front: Front) -> str:
    return f"{front.host}:" if front.host else ""


def envoy(nodes: Sequence[Node], front: Front) -> str:
    """For Envoy 1.24 or newer, as JSON, which it reads as well as YAML. Tells the client's address with PROXY v2."""
    routes: list[dict[str, Any]] = [
        {
            "match": {"safe_regex": {"regex": f"(?i){node.path_pattern[1:]}.*"}},
            "route": {"cluster": f"node-{node.name}", "timeout": "0s"},
        }
        for node in nodes
    ]
    retry = {
        # reset: what waited in the queue of a node that ends before it accepted
        "retry_on": "connect-failure,refused-stream,reset,retriable-status-codes",
        "retriable_status_codes": [503],
        "num_retries": 3,
        "retry_host_predicate": [
            _typed("envoy.retry_host_predicates.previous_hosts", _PREVIOUS_HOSTS),
        ],
        "host_selection_retry_max_attempts": 3,
    }
    routes.append({"match": {"prefix": "/"}, "route": {"cluster": "ready", "timeout": "0s", "retry_policy": retry}})
    manager = {
        "@type": _HTTP_MANAGER,
        "stat_prefix": "relay",
        "codec_type": "HTTP1",
        "use_remote_address": True,
        "request_headers_timeout": f"{_HEAD_TIMEOUT}s",
        "stream_idle_timeout": f"{_TUNNEL_TIMEOUT}s",
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "http_filters": [_typed("envoy.filters.http.router", _ROUTER)],
        "route_config": {"virtual_hosts": [{"name": "relay", "domains": ["*"], "routes": routes}]},
    }
    chain: dict[str, Any] = {
        "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    }
    if front.certificate is not None:
        file = {"filename": front.certificate}
        tls = {
            "@type": f"{_TLS}.DownstreamTlsContext",
            "common_tls_context": {
                "alpn_protocols": ["http/1.1"],
                "tls_certificates": [{"certificate_chain": file, "private_key": file}],
            },
        }
        chain["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": tls}
    listener = {
        "name": "relay",
        "address": _envoy_address(front.host or "0.0.0.0", front.port),  # noqa: S104  (who asks for no host means all)
        "filter_chains": [chain],
    }
    clusters = [_envoy_cluster("ready", nodes, checked=True)]
    clusters += [_envoy_cluster(f"node-{node.name}", [node], checked=False) for node in nodes]
    return json.dumps({"static_resources": {"listeners": [listener], "clusters": clusters}}, indent=2) + "\n"


_EXTENSIONS = "type.googleapis.com/envoy.extensions"
_HTTP_MANAGER = f"{_EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER = f"{_EXTENSIONS}.filters.http.router.v3.Router"
_PREVIOUS_HOSTS = f"{_EXTENSIONS}.retry.host.previous_hosts.v3.PreviousHostsPredicate"
_TLS = f"{_EXTENSIONS}.transport_sockets.tls.v3"
_PROXY = f"{_EXTENSIONS}.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport"
_RAW = f"{_EXTENSIONS}.transport_sockets.raw_buffer.v3.RawBuffer"

_BOUNDS = ("max_connections", "max_pending_requests", "max_requests", "max_retries")


def _typed(name: str, kind: str) -> dict[str, Any]:
    return {"name": name, "typed_config": {"@type": kind}}


def _envoy_address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host.strip("[]"), "port_value": port}}


def _envoy_cluster(name: str, nodes: Sequence[Node], *, checked: bool) -> dict[str, Any]:
    endpoints = []
    for node in nodes:
        endpoint: dict[str, Any] = {"address": _envoy_address(node.host, node.port)}
        if checked and node.admin is not None:
            endpoint["health_check_config"] = {"port_value": node.admin}
        endpoints.append({"endpoint": endpoint})
    proxy = {
        "@type": _PROXY,
        "config": {"version": "V2"},
        "transport_socket": _typed("envoy.transport_sockets.raw_buffer", _RAW),
    }
    cluster: dict[str, Any] = {
        "name": name,
        "type": "STRICT_DNS",
        "connect_timeout": f"{_CONNECT_TIMEOUT}s",
        "lb_policy": "ROUND_ROBIN",
        "circuit_breakers": {"thresholds": [dict.fromkeys(_BOUNDS, _NO_BOUND)]},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
        "transport_socket": {"name": "envoy.transport_sockets.upstream_proxy_protocol", "typed_config": proxy},
    }
    if checked and all(node.admin is not None for node in nodes):
        cluster["health_checks"] = [
            {
                "timeout": "2s",
                "interval": "1s",
                "no_traffic_interval": "1s",
                "unhealthy_threshold": 2,
                "healthy_threshold": 1,
                "http_health_check": {"path": "/readyz"},
                "transport_socket_match_criteria": {"plain": True},
            }
        ]
        # A check goes to another port, which expects no PROXY header in front.
        cluster["transport_socket_matches"] = [
            {
                "name": "plain",
                "match": {"plain": True},
                "transport_socket": _typed("envoy.transport_sockets.raw_buffer", _RAW),
            }
        ]
    return cluster


PROXIES = {"haproxy": haproxy, "nginx": nginx, "envoy": envoy}

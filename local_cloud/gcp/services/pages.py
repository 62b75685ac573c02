"""What Cloud Run's front end answers when no container does.

The texts are those that clients of the real front end report.
"""

from __future__ import annotations

from html import escape

from starlette.responses import HTMLResponse, PlainTextResponse, Response

_PAGE = """<html><head>
<meta http-equiv="content-type" content="text/html;charset=utf-8">
<title>{status} {title}</title>
</head>
<body text=#000000 bgcolor=#ffffff>
<h1>Error: {title}</h1>
<h2>{text}</h2>
<h2></h2>
</body></html>
"""


def _page(status: int, title: str, text: str, headers: dict[str, str] | None = None) -> Response:
    return HTMLResponse(_PAGE.format(status=status, title=title, text=text), status, headers)


def forbidden(path: str) -> Response:
    """A request without a token, or with one that does not let it in."""
    text = f"Your client does not have permission to get URL <code>{escape(path)}</code> from this server."
    return _page(403, "Forbidden", text)


def unauthorized(path: str, why: str) -> Response:
    """A request with a token that is none."""
    text = f"Your client does not have permission to the requested URL <code>{escape(path)}</code>."
    challenge = f'Bearer error="invalid_token" error_description="{why}"'
    return _page(401, "Unauthorized", text, {"WWW-Authenticate": challenge})


def not_found() -> Response:
    """A name that no service has, or a service that does not take requests from outside."""
    return _page(404, "Page not found", "The requested URL was not found on this server.")


def unavailable(status: int, text: str) -> Response:
    """No instance answered."""
    return PlainTextResponse(text + "\n", status)


def timed_out() -> Response:
    """The service's timeout is over."""
    return PlainTextResponse("upstream request timeout", 504)


def broken() -> Response:
    """The instance ended, or broke the connection."""
    return PlainTextResponse(
        "upstream connect error or disconnect/reset before headers. reset reason: connection termination", 503
    )

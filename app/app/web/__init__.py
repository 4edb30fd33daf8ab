"""HTTP: the JSON routes, the page, uploads, limits and errors."""

from app.web.connections import Connection, backlog, raise_file_limit
from app.web.errors import add_error_handlers
from app.web.middleware import add_middleware
from app.web.rates import Rates
from app.web.routes import add_routes
from app.web.uploads import Decoding

__all__ = [
    "Connection",
    "Decoding",
    "Rates",
    "add_error_handlers",
    "add_middleware",
    "add_routes",
    "backlog",
    "raise_file_limit",
]

"""How clients of an authentication function show who they are, in OpenAPI's own words, for the application's document.

A function reads whatever it likes of a request, so what it reads is said beside it. Only the document knows of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

import msgspec

from operon.errors import CatalogError

F = TypeVar("F")

Scheme = Mapping[str, Any]

SCHEMES = "__operon_security_schemes__"
NAME = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
HINT = 'as OpenAPI writes them: bearer={"type": "http", "scheme": "bearer"}'


# https://spec.openapis.org/oas/v3.1.0#security-scheme-object: what each kind has to have. It may have more.
class ApiKey(msgspec.Struct, tag="apiKey"):
    name: str
    place: Literal["query", "header", "cookie"] = msgspec.field(name="in")


class Http(msgspec.Struct, tag="http"):
    scheme: str


class OAuth2(msgspec.Struct, tag="oauth2"):
    flows: dict[str, dict[str, Any]]


class OpenIdConnect(msgspec.Struct, tag="openIdConnect"):
    url: str = msgspec.field(name="openIdConnectUrl")


class MutualTLS(msgspec.Struct, tag="mutualTLS"): ...


def security_scheme(**schemes: Scheme) -> Callable[[F], F]:
    """Says for the OpenAPI document by what an authentication function knows its callers; any one of them is enough.

    `@operon.security_scheme(bearer={"type": "http", "scheme": "bearer"})` above the function. Every route for which it
    asks names the schemes then, with the roles that the route requires. Raises CatalogError for what is no scheme.
    """
    for name, scheme in schemes.items():
        require_scheme(name, scheme)

    def decorate(fn: F) -> F:
        marked: Any = getattr(fn, "__func__", fn)  # the function of a bound method
        if isinstance(marked, type) or not callable(marked):
            raise CatalogError(
                f"@operon.security_scheme decorates authentication functions, not {marked!r}",
                hint="the function of Operon(authentication=fn) or @operon.authentication(fn)",
            )
        setattr(marked, SCHEMES, {**schemes_of(marked), **schemes})
        return fn

    return decorate


def schemes_of(fn: object) -> Mapping[str, Scheme]:
    """What was said of an authentication function, by name."""
    schemes: Mapping[str, Scheme] = getattr(fn, SCHEMES, {})
    return schemes


def require_scheme(name: str, scheme: object) -> None:
    if NAME.fullmatch(name) is None:
        raise CatalogError(f"@operon.security_scheme was given the name {name!r}", hint="letters, digits, . _ and -")
    try:
        msgspec.convert(scheme, ApiKey | Http | OAuth2 | OpenIdConnect | MutualTLS)
    except msgspec.ValidationError as error:
        raise CatalogError(f"the security scheme {name!r} is none: {error}", hint=HINT) from None

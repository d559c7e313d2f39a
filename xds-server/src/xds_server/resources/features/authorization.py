"""Servers refuse what no permission allows: such calls end with PERMISSION_DENIED.

https://github.com/grpc/proposal/blob/master/A41-xds-rbac.md
"""

from envoy.config.core.v3 import extension_pb2
from envoy.config.rbac.v3 import rbac_pb2 as rules_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as manager_pb2,
)
from envoy.extensions.rbac.audit_loggers.stream.v3 import stream_pb2
from envoy.type.matcher.v3 import path_pb2, string_pb2

from xds_server.model.traffic import Authorization, Permission
from xds_server.resources.types import pack


def http_filter(name: str, authorization: Authorization) -> manager_pb2.HttpFilter:
    """The filter of a server's Listener. With several of them, each has to allow a call."""
    policies = {str(place): _policy(permission) for place, permission in enumerate(authorization.allow)}
    rules = rules_pb2.RBAC(
        action=rules_pb2.RBAC.ALLOW, policies=policies, audit_logging_options=_log_what_is_refused()
    )
    return manager_pb2.HttpFilter(name=name, typed_config=pack(rbac_pb2.RBAC(rules=rules)))


def _log_what_is_refused() -> rules_pb2.RBAC.AuditLoggingOptions:
    """Makes servers write a line of JSON to their output for each call that they refuse (gRFC A59)."""
    logger = extension_pb2.TypedExtensionConfig(name="stdout", typed_config=pack(stream_pb2.StdoutAuditLog()))
    options = rules_pb2.RBAC.AuditLoggingOptions
    return options(
        audit_condition=options.ON_DENY,
        logger_configs=[options.AuditLoggerConfig(audit_logger=logger, is_optional=True)],
    )


def _policy(permission: Permission) -> rules_pb2.Policy:
    methods = [
        rules_pb2.Permission(url_path=path_pb2.PathMatcher(path=_text(each))) for each in permission.methods
    ]
    return rules_pb2.Policy(
        permissions=methods or [rules_pb2.Permission(any=True)],
        principals=[
            rules_pb2.Principal(authenticated=rules_pb2.Principal.Authenticated(principal_name=_text(each)))
            for each in permission.principals
        ],
    )


def _text(pattern: str) -> string_pb2.StringMatcher:
    """Matches a text, or with ``*`` at the end all texts that begin like it."""
    if pattern.endswith("*"):
        return string_pb2.StringMatcher(prefix=pattern.removesuffix("*"))
    return string_pb2.StringMatcher(exact=pattern)

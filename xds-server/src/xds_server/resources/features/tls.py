"""Encryption between clients and servers. Certificates and authorities come to both from files: never over xDS.

https://github.com/grpc/proposal/blob/master/A29-xds-tls-security.md
"""

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import base_pb2
from envoy.config.listener.v3 import listener_components_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, tls_pb2
from envoy.type.matcher.v3 import string_pb2
from google.protobuf.message import Message

from xds_server.model.traffic import Tls
from xds_server.resources.types import pack

TRANSPORT_SOCKET = "envoy.transport_sockets.tls"


def apply(cluster: cluster_pb2.Cluster, tls: Tls | None) -> None:
    """Makes clients encrypt, and check that one of the names is in the server's certificate."""
    if tls is None:
        return
    common = _validation(tls)
    names = common.validation_context.match_subject_alt_names
    names.extend(string_pb2.StringMatcher(exact=name) for name in tls.subject_alt_names)
    if tls.is_mutual:
        _present(common, tls)
    cluster.transport_socket.CopyFrom(_socket(tls_pb2.UpstreamTlsContext(common_tls_context=common)))


def apply_to_server(chain: listener_components_pb2.FilterChain, tls: Tls | None) -> None:
    """Makes a server encrypt, and with mutual TLS ask for the client's certificate."""
    if tls is None:
        return
    common = _validation(tls) if tls.is_mutual else tls_pb2.CommonTlsContext()
    _present(common, tls)
    context = tls_pb2.DownstreamTlsContext(common_tls_context=common)
    if tls.is_mutual:
        context.require_client_certificate.value = True
    chain.transport_socket.CopyFrom(_socket(context))


def _validation(tls: Tls) -> tls_pb2.CommonTlsContext:
    """Trusts the authorities of the provider."""
    authorities = common_pb2.CertificateProviderPluginInstance(instance_name=tls.provider)
    context = common_pb2.CertificateValidationContext(ca_certificate_provider_instance=authorities)
    return tls_pb2.CommonTlsContext(validation_context=context)


def _present(common: tls_pb2.CommonTlsContext, tls: Tls) -> None:
    """Presents the certificate of the provider."""
    common.tls_certificate_provider_instance.instance_name = tls.provider


def _socket(context: Message) -> base_pb2.TransportSocket:
    return base_pb2.TransportSocket(name=TRANSPORT_SOCKET, typed_config=pack(context))

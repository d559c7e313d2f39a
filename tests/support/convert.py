"""Kubernetes objects as the server decodes them, from the documents that a person would write."""

from xds_server.objects import documents
from xds_server.objects.kinds import KINDS

BY_NAME = {(kind.api_version, kind.name): kind for kind in KINDS}


def convert(document):
    """Decodes one document."""
    return documents.convert(document, BY_NAME)

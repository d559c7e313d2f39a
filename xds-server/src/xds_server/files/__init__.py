"""Discovery from a directory of YAML and JSON files."""

from xds_server.files.directory import FilesSource

__all__ = ["FilesSource"]

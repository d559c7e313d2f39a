"""A third kind, as a custom resource is: it takes a row and a struct, and nothing else."""

from xds_server.objects.kinds import KINDS, Collection, Kind
from xds_server.objects.meta import Object


class Widget(Object, frozen=True):
    """The struct."""

    size: int


ROW = Kind("example.com/v1", "Widget", "widgets", Widget, required=False)
WITH_WIDGETS = (*KINDS, ROW)
WIDGETS = Collection(ROW)


def widget(name="w", size=1):
    return {
        "apiVersion": "example.com/v1",
        "kind": "Widget",
        "metadata": {"name": name, "namespace": "shop"},
        "size": size,
    }


def size(found, name="w"):
    """The size of a widget that was found; None if there is none."""
    known = found.store.get(WIDGETS, ("shop", name))
    return known.size if isinstance(known, Widget) else None

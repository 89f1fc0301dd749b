"""A node's image cache for its admin: what is in it, and how to empty it."""

from __future__ import annotations

from pcocc_runtime.cache import layer_store
from pcocc_runtime.cache.cached_layer import CachedLayer
from pcocc_runtime.cache.layer_store import Store
from pcocc_runtime.documents.image_cache import ImageCache
from pcocc_runtime.errors import RequestError


def list_cached(cache: ImageCache | None) -> tuple[ImageCache, list[CachedLayer]]:
    """Return the cache's settings and its layers, the next to be removed first; RequestError without a cache."""
    found, store = _open(cache)
    with layer_store.as_owner(store):
        every = [
            CachedLayer(
                path.name.partition(".")[0], taken, when, layer_store.is_used(path), "." not in path.name
            )
            for path, when, taken in layer_store.list_cached_layers(store)
        ]
    return found, sorted(every, key=lambda one: (one.used, one.last_use))


def clear_cache(cache: ImageCache | None) -> tuple[int, int, int]:
    """Remove what no VM uses; return layers removed, bytes freed, layers kept; RequestError for who may not."""
    found, store = _open(cache)
    try:
        with layer_store.as_owner(store):
            return layer_store.remove_all_unused(store)
    except PermissionError:
        wrong = f"you may not clear the image cache {found.directory}"
        raise RequestError(wrong, "only its owner and root can clear it") from None


def _open(cache: ImageCache | None) -> tuple[ImageCache, Store]:
    if cache is None:
        raise RequestError(
            "this site has no image cache", "set 'image-cache' in pcocc.yaml to have one: see pcocc.yaml(5)"
        )
    store = layer_store.public_store(cache.directory, cache.size)
    if not layer_store.is_trusted(store):
        hint = "image caches are on the nodes: run this there; see 'image-cache' in pcocc.yaml(5)"
        reason = f"{cache.directory} is not a directory that only its owner can write to"
        raise RequestError(f"this host has no image cache: {reason}", hint)
    return cache, store

"""The models in memory: loaded from the registry on first use, bounded by bytes.

A version that is in use is never evicted; of the others the one unused for longest goes first.
What a name or an alias means is believed for a while, asked again in the background, and the old
version answers until the new one is loaded: a promotion drops no request. While the store is down,
what is loaded goes on. Pictures and HTTP are not known here.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import structlog

from services.serving.batching import SHORT_S, Batcher
from services.serving.drawing import MAX_BATCH, Draw, Drawer, label_number
from services.serving.requests import MAX_SEED
from shared.errors import NotFound, Unavailable
from shared.images import Pixels
from shared.networks import snapshot
from shared.networks.generators import Generator
from shared.schemas.models import ModelCard, SnapshotConfig
from shared.storage.objects import ObjectStore
from shared.storage.registry import Registry

Version = tuple[str, int]
"""A model's name and the number of a version."""

Render = Callable[[Pixels], bytes]
"""Makes a body of the pictures [n, H, W, C]."""

Order = tuple[Draw, Render]
Work = Callable[[Sequence[Order]], Sequence[bytes]]

Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")

NUM_STORE_THREADS = 16
RETRY_AFTER_S = 1.0

log = structlog.get_logger()


class LoadedModel:
    """A version in memory, ready to draw."""

    def __init__(
        self,
        card: ModelCard,
        config: SnapshotConfig,
        drawer: Drawer,
        batcher: Callable[[Work], Batcher[Order, bytes]],
    ) -> None:
        self.card = card
        self.config = config
        self._drawer = drawer
        self._batcher = batcher(self._work)
        self._spares: deque[tuple[int, Pixels]] = deque()
        """Pictures of seeds that nobody has asked for."""
        self._spares_from: int | None = None
        """The seed from which the next batch draws some."""

    @property
    def generator(self) -> Generator:
        """The network, for work in another thread than the one that draws."""
        return self._drawer.network

    def label_number(self, label: int | str | None, *, pointer: str) -> int | None:
        """The class that a number or a name means; see `drawing.label_number`."""
        return label_number(
            label, self.config.class_names, self.config.generator.num_classes, pointer=pointer
        )

    async def draw(self, draw: Draw, render: Render) -> bytes:
        """The pictures, rendered; drawn together with what others ask for at the same time."""
        return await self._batcher.submit((draw, render), weight=len(draw.indices))

    async def draw_any(
        self, seed: int, render: Callable[[Pixels, int], bytes]
    ) -> tuple[int, bytes]:
        """A picture for who has no wishes, rendered, and its seed: that of a picture which lies
        ready, else `seed`. A small network draws several in hardly more time than one, so those of
        the next seeds are drawn with it."""
        if self._spares:
            ready, pixels = self._spares.popleft()
            return ready, render(pixels, ready)
        self._spares_from = seed + 1
        return seed, await self.draw(Draw(seed, range(1)), lambda pixels: render(pixels, seed))

    def _work(self, orders: Sequence[Order]) -> list[bytes]:
        draws = [draw for draw, _ in orders]
        seeds = range(0)
        if self._spares_from is not None:
            spare = self._drawer.spare(sum(len(draw.indices) for draw in draws))
            seeds = range(self._spares_from, min(self._spares_from + spare, MAX_SEED))
            self._spares_from = None
        pictures = self._drawer.draw([*draws, *(Draw(seed, range(1)) for seed in seeds)])
        num_asked = len(draws)
        self._spares.extend(zip(seeds, pictures[num_asked:], strict=True))
        asked = zip(pictures[:num_asked], orders, strict=True)
        return [render(pixels) for pixels, (_, render) in asked]


@dataclass(slots=True)
class _Belief:
    version: Version
    asked_at: float
    unanswered: bool = False
    """The store was asked again and did not answer: nobody waits for it any more."""


class Models:
    """The models of one replica. All methods belong to one event loop."""

    def __init__(
        self,
        store: ObjectStore,
        *,
        executor: Executor,
        max_bytes: int,
        alias_ttl_s: float,
        on_batch: Callable[[int], None] = lambda num_images: None,
        short_s: float = SHORT_S,
    ) -> None:
        """`executor` draws all that takes longer than `short_s`, the event loop the rest;
        `max_bytes` bounds the weights in memory; `on_batch` hears how many images that were asked
        for are drawn together."""
        self.registry = Registry(store)
        self._store = store
        self._batcher: Callable[[Work], Batcher[Order, bytes]] = partial(
            Batcher, max_weight=MAX_BATCH, executor=executor, on_batch=on_batch, short_s=short_s
        )
        self._max_bytes = max_bytes
        self._alias_ttl_s = alias_ttl_s
        self._threads = ThreadPoolExecutor(NUM_STORE_THREADS, thread_name_prefix="store")
        self._loaded: dict[Version, LoadedModel] = {}  # the least recently used first
        self._num_bytes: dict[Version, int] = {}  # of what is loaded and what is being loaded
        self._users: Counter[Version] = Counter()
        self._beliefs: dict[str, _Belief] = {}
        self._loads: _Once[Version, LoadedModel] = _Once()
        self._questions: _Once[str, Version] = _Once()

    async def in_thread(self, call: Callable[..., Result], *args: object) -> Result:
        """Call the store off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(call, *args))

    @asynccontextmanager
    async def use(self, ref: str) -> AsyncIterator[LoadedModel]:
        """The model that `name`, `name@version` or `name@alias` means; it stays until the end.

        Raises NotFound, InvalidInput; CorruptObject; Unavailable: the store is down and the model
        is not loaded, or memory is full of models in use.
        """
        version = await self.resolve(ref)
        self._users[version] += 1
        try:
            model = self._loaded.pop(version, None)
            if model is None:
                model = await self._loads.run(version, partial(self._load, version))
                self._loaded.pop(version, None)
            self._loaded[version] = model  # now the most recently used
            yield model
        finally:
            self._users[version] -= 1

    async def resolve(self, ref: str) -> Version:
        """What a reference means now, at most twice `alias_ttl_s` out of date. Raises as `use`."""
        belief = self._beliefs.get(ref)
        age_s = time.monotonic() - belief.asked_at if belief else 0.0
        if belief is None or age_s > self._alias_ttl_s:
            question = self._questions.start(ref, partial(self._ask, ref))
            if belief is None:
                return await asyncio.shield(question)
            if age_s > 2 * self._alias_ttl_s and not belief.unanswered:
                # Long unasked. A store that hangs must not hold up what can be answered.
                await asyncio.wait({question}, timeout=self._alias_ttl_s)
                if question.done():
                    return question.result()
                belief.unanswered = True
        return belief.version

    def loaded(self, name: str) -> list[int]:
        """The versions of a model that are in memory."""
        return sorted(number for model, number in self._loaded if model == name)

    def num_loaded(self) -> int:
        """How many versions are in memory. This and the next may be asked from any thread."""
        return len(self._loaded)

    def num_bytes(self) -> int:
        """The weights in memory and those that are being loaded."""
        return sum(list(self._num_bytes.values()))

    def is_loaded(self, version: Version) -> bool:
        return version in self._loaded

    async def card(self, ref: str) -> ModelCard:
        """The card of the version that a reference means. Raises as `use`; loads nothing."""
        version = await self.resolve(ref)
        model = self._loaded.get(version)
        return model.card if model else await self.in_thread(self.registry.card, *version)

    async def check_ready(self) -> None:
        """Raises Unavailable when nothing is loaded and the store does not answer."""
        if not self._loaded:
            await self.in_thread(self._store.check)

    # Asking

    async def _ask(self, ref: str) -> Version:
        """Ask the registry what a reference means, load that if it is a change, and believe it."""
        old = self._beliefs.get(ref)
        belief = _Belief(("", 0), time.monotonic())
        try:
            belief.version = await self.in_thread(self.registry.resolve, ref)
            if old and old.version != belief.version and old.version in self._loaded:
                await self._loads.run(belief.version, partial(self._load, belief.version))
        except NotFound:
            self._beliefs.pop(ref, None)
            raise
        except Unavailable as error:
            if old is None or old.version not in self._loaded:
                raise
            log.warning("going on with what is loaded", ref=ref, error=str(error))
            belief = _Belief(old.version, time.monotonic(), unanswered=True)
        self._beliefs[ref] = belief
        return belief.version

    # Loading

    async def _load(self, version: Version) -> LoadedModel:
        if version in self._loaded:
            return self._loaded[version]
        card = await self.in_thread(self.registry.card, *version)
        self._make_room(card.weights_bytes)
        self._num_bytes[version] = card.weights_bytes
        try:
            model = await self.in_thread(self._read, card)
        except BaseException:
            del self._num_bytes[version]
            raise
        self._loaded[version] = model
        return model

    def _read(self, card: ModelCard) -> LoadedModel:
        started = time.monotonic()
        weights, config = self.registry.snapshot(card.model, card.version)
        drawer = Drawer(snapshot.load(weights, config))
        log.info(
            "model loaded",
            model=card.model,
            version=card.version,
            bytes=len(weights),
            sizes=drawer.sizes,
            seconds=round(time.monotonic() - started, 3),
        )
        return LoadedModel(card, config, drawer, self._batcher)

    def _make_room(self, num_bytes: int) -> None:
        """Evict what is not in use until there is room. A model larger than all room stands alone.

        Raises Unavailable: what is left is in use.
        """
        for version in list(self._loaded):
            if sum(self._num_bytes.values()) + num_bytes <= self._max_bytes:
                return
            if not self._users[version]:
                del self._loaded[version], self._num_bytes[version]
                log.info("model evicted", model=version[0], version=version[1])
        taken = sum(self._num_bytes.values())
        if taken and taken + num_bytes > self._max_bytes:
            raise Unavailable(
                f"no room for {num_bytes} bytes: {taken} of {self._max_bytes} are models in use",
                retry_after_s=RETRY_AFTER_S,
            )


class _Once(Generic[Key, Result]):
    """Runs one task per key at a time; who comes while it runs gets its result."""

    def __init__(self) -> None:
        self._tasks: dict[Key, asyncio.Task[Result]] = {}

    def start(self, key: Key, work: Callable[[], Awaitable[Result]]) -> asyncio.Task[Result]:
        task = self._tasks.get(key)
        if task is None:
            task = asyncio.ensure_future(_awaited(work))
            self._tasks[key] = task
            task.add_done_callback(partial(self._forget, key))
        return task

    async def run(self, key: Key, work: Callable[[], Awaitable[Result]]) -> Result:
        """The result. A caller who is cancelled leaves the task to the others."""
        return await asyncio.shield(self.start(key, work))

    def _forget(self, key: Key, task: asyncio.Task[Result]) -> None:
        del self._tasks[key]
        if not task.cancelled():
            task.exception()  # seen, also when every caller has left


async def _awaited(work: Callable[[], Awaitable[Any]]) -> Any:
    return await work()

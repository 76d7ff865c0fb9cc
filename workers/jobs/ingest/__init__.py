"""An ingest job: an upload of images becomes a version of a dataset.

    archives      -> folders | idx | parquet -> pipeline (Ray Data) -> version
    files, spooled   items with labels          pixels of one size     shards and manifest

The upload is hostile until it is pixels. What one image does wrong is a refusal in the manifest;
what the upload does wrong as a whole fails the job. It fails too when nothing is left, or when more
was refused than taken: then the upload is not what its owner thinks it is.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from shared import decoding
from shared.errors import InvalidInput, NotFound, UnsafeImage
from shared.schemas.events import EventType
from shared.schemas.jobs import Outcome, Progress
from shared.schemas.specs import IngestSpec
from workers.jobs.context import AttemptContext, End
from workers.jobs.ingest import archives, folders, idx, parquet, pipeline
from workers.jobs.ingest.archives import Kind
from workers.jobs.ingest.spool import Contents, Refusals, Spool
from workers.jobs.ingest.version import VersionBuilder
from workers.training.shards import NO_LABEL

__all__ = ["run"]

MAX_CAPTION_CHARS = 2000  # a caption beyond it is cut
MAX_DEFAULT_SIZE = 64
MIN_SIZE = 8


def run(context: AttemptContext) -> End:
    """Ingest the upload that the job's spec names.

    The result is `{dataset, version, num_images, num_refused, num_duplicates, class_names}`.

    Raises:
        InvalidInput: the upload as a whole is not usable; the message says why.
        NotFound: there is no upload.
    """
    spec = IngestSpec.model_validate(context.job.spec)
    with tempfile.TemporaryDirectory(prefix="elmyr-ingest-") as folder:
        refusals = Refusals()
        builder = _build(context, spec, Path(folder), refusals, context.check_stop)
        manifest = builder.publish(context.store, spec, refusals)
    _log(context, f"{manifest.name} is at version {manifest.version}")
    return End(
        Outcome.SUCCEEDED,
        result={
            "dataset": manifest.name,
            "version": manifest.version,
            "num_images": manifest.num_images,
            "num_refused": refusals.count,
            "num_duplicates": builder.num_duplicates,
            "class_names": manifest.class_names,
        },
    )


def _build(
    context: AttemptContext,
    spec: IngestSpec,
    folder: Path,
    refusals: Refusals,
    check_stop: Callable[[], None],
) -> VersionBuilder:
    """Everything from the upload to the shards on disk."""
    upload = _download(context, spec, folder)
    with Spool(folder / "spool", packed_bytes=upload.stat().st_size) as spool:
        # Unpack, and find out what the files mean.
        members = archives.unpack(upload, spool, refusals, check_stop)
        upload.unlink()
        kinds = {member.kind for member in members}
        if Kind.PARQUET in kinds:
            contents = parquet.read(members, spool, refusals, check_stop)
        elif Kind.IDX in kinds:
            contents = idx.read(members, spool, refusals)
        else:
            contents = folders.read(members, spool, refusals)
        contents = _tidied(contents, refusals)
        spool.flush()

        # Fix the size and the channels of the dataset.
        size, channels = _layout(spec, contents, spool, check_stop)
        _log(context, f"{len(contents.items)} images, made {size} x {size} x {channels}")

        # Decode, drop duplicates, write shards.
        builder = VersionBuilder(
            folder, size=size, channels=channels, class_names=contents.class_names
        )
        done = 0
        for block in pipeline.decoded(
            contents.items, spool.path, size=size, channels=channels, fit=spec.fit
        ):
            check_stop()
            builder.add(block, refusals)
            done += block.num_rows
            context.progress(Progress(done=done, of=len(contents.items)))
    _log(
        context,
        f"{builder.num_images} images taken, {builder.num_duplicates} duplicates dropped, "
        f"{refusals.count} files refused",
    )
    _check_enough(builder, refusals)
    return builder


def _download(context: AttemptContext, spec: IngestSpec, folder: Path) -> Path:
    try:
        size = context.store.stat(spec.upload_key).bytes
    except NotFound as error:
        raise NotFound("the upload is not kept any more: upload the file again") from error
    if size > context.settings.max_upload_bytes:
        raise InvalidInput(
            f"the upload has {size:,} bytes: at most "
            f"{context.settings.max_upload_bytes:,} are taken"
        )
    path = folder / "upload"
    context.store.download(spec.upload_key, path)
    return path


def _tidied(contents: Contents, refusals: Refusals) -> Contents:
    """In a dataset with classes every image has one; captions are short and can be encoded."""
    items = []
    for item in contents.items:
        if contents.class_names and item.label == NO_LABEL:
            refusals.add(item.path, "has no class, while others have")
            continue
        text = (item.text or "")[:MAX_CAPTION_CHARS].encode(errors="replace").decode()
        items.append(replace(item, text=text or None))
    names = [name.encode(errors="replace").decode() for name in contents.class_names]
    return Contents(items=items, class_names=names)


def _layout(
    spec: IngestSpec, contents: Contents, spool: Spool, check_stop: Callable[[], None]
) -> tuple[int, int]:
    """Size and channels: as the spec says, else as most of the images have them."""
    if spec.size and spec.channels:
        return spec.size, spec.channels
    sides: list[int] = []
    has_colour = False
    for item in contents.items:
        check_stop()
        if item.shape:
            sides.append(min(item.shape[:2]))
            has_colour |= item.shape[2:] == (3,)
            continue
        try:
            header = decoding.read_header(spool.read(item.extent))
        except UnsafeImage:
            continue  # refused, with its reason, when it is decoded
        sides.append(min(header.width, header.height))
        has_colour |= header.has_colour
    median = int(statistics.median(sides)) if sides else MAX_DEFAULT_SIZE
    size = spec.size or max(MIN_SIZE, min(median, MAX_DEFAULT_SIZE))
    return size, spec.channels or (3 if has_colour else 1)


def _check_enough(builder: VersionBuilder, refusals: Refusals) -> None:
    taken = builder.num_images + builder.num_duplicates
    if taken == 0 or refusals.count > taken:
        first = "; ".join(f"{each.path}: {each.reason}" for each in refusals.listed[:5])
        raise InvalidInput(
            f"{taken} images could be taken and {refusals.count} files were refused"
            + (f", the first being {first}" if first else "")
        )


def _log(context: AttemptContext, line: str) -> None:
    context.report(EventType.LOG, {"line": line, "stream": "ingest"})

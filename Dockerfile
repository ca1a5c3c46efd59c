# Two images from one tree: `--target server` (server and operator CLI), `--target agent` (a device).
# `sh docker/pin-images.sh` writes this image's digest into .env, for `docker compose` to pass on.
ARG PYTHON_IMAGE=python:3.11-slim

# pip takes only files whose hash is in the lock: for what builds the package, and for the rest
FROM ${PYTHON_IMAGE} AS source
WORKDIR /source
COPY requirements requirements
RUN python -m venv /opt/build \
 && /opt/build/bin/pip install --no-cache-dir --require-hashes -r requirements/build.lock \
 && python -m venv /opt/pilotwave
COPY pyproject.toml README.md LICENSE ./
COPY agent agent
COPY server server
COPY migrations migrations
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels .

FROM source AS server-build
RUN /opt/pilotwave/bin/pip install --no-cache-dir --require-hashes -r requirements/server.lock \
 && /opt/pilotwave/bin/pip install --no-deps --no-index /wheels/*.whl

FROM source AS agent-build
RUN /opt/pilotwave/bin/pip install --no-cache-dir --require-hashes -r requirements/agent.lock \
 && /opt/pilotwave/bin/pip install --no-deps --no-index /wheels/*.whl

FROM ${PYTHON_IMAGE} AS runtime
ENV PATH=/opt/pilotwave/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
# The folders exist, and belong to the user, so that named volumes mounted there do too.
RUN useradd --system --uid 10001 --create-home pilotwave \
 && install -d -o pilotwave -g pilotwave -m 0700 /data /operator /token \
 && install -d -o pilotwave -g pilotwave -m 0750 /enrolment
COPY docker /opt/pilotwave-docker
USER pilotwave
WORKDIR /home/pilotwave

FROM runtime AS server
COPY --from=server-build /opt/pilotwave /opt/pilotwave
ENV PILOTWAVE_DATA_DIR=/data \
    PILOTWAVE_HOST=0.0.0.0 \
    PILOTWAVE_PORT=8600
EXPOSE 8600
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s --retries=12 \
  CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['PILOTWAVE_PORT'] + '/healthz', timeout=2)"]
ENTRYPOINT ["/bin/sh", "/opt/pilotwave-docker/server.sh"]

FROM runtime AS agent
COPY --from=agent-build /opt/pilotwave /opt/pilotwave
ENV PILOTWAVE_DEVICE_DATA=/data
# The agent rewrites its status at every poll; an old one means that it has stopped doing so.
HEALTHCHECK --interval=60s --timeout=5s --start-period=60s --retries=3 \
  CMD ["/bin/sh", "/opt/pilotwave-docker/device.sh", "healthy"]
ENTRYPOINT ["/bin/sh", "/opt/pilotwave-docker/device.sh"]

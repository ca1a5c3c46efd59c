# Two images from one tree: `--target server` (server and operator CLI), `--target agent` (a device).
FROM python:3.11-slim AS source
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY agent agent
COPY server server
COPY migrations migrations
RUN python -m venv /opt/pilotwave

FROM source AS server-build
RUN /opt/pilotwave/bin/pip install --no-cache-dir -c constraints.txt '.[server,cli]'

FROM source AS agent-build
RUN /opt/pilotwave/bin/pip install --no-cache-dir -c constraints.txt '.[onnxruntime]'

FROM python:3.11-slim AS runtime
ENV PATH=/opt/pilotwave/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
# The folders exist, and belong to the user, so that named volumes mounted there do too.
RUN useradd --system --uid 10001 --create-home pilotwave \
 && install -d -o pilotwave -g pilotwave -m 0700 /data /operator \
 && install -d -o pilotwave -g pilotwave -m 0750 /enrolment
COPY docker /opt/pilotwave-docker
USER pilotwave
WORKDIR /home/pilotwave
VOLUME /data

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

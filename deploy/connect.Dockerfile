# The connector, as a service container of CI jobs: docker build -f deploy/connect.Dockerfile .
# It needs neither the control plane nor an agent, so this image is much smaller than the gateway's.
ARG PYTHON=3.11-slim-bookworm

FROM python:${PYTHON} AS build
WORKDIR /source
COPY requirements.lock ./
RUN python -m venv /opt/sockerless \
    && /opt/sockerless/bin/pip install --no-cache-dir --quiet --constraint requirements.lock \
        h11 "httpx[http2]" orjson picows uvicorn \
    && /opt/sockerless/bin/pip uninstall --yes --quiet pip setuptools
COPY agent_gateway/*.py /opt/sockerless/lib/agent_gateway/
COPY agent_gateway/connector/ /opt/sockerless/lib/agent_gateway/connector/
COPY agent_gateway/forwarding/ /opt/sockerless/lib/agent_gateway/forwarding/
COPY agent_gateway/front_door/ /opt/sockerless/lib/agent_gateway/front_door/
COPY agent_gateway/publisher/ /opt/sockerless/lib/agent_gateway/publisher/
COPY agent_gateway/relay/ /opt/sockerless/lib/agent_gateway/relay/
RUN python -m compileall -q -j 0 /opt/sockerless/lib

FROM python:${PYTHON}
LABEL org.opencontainers.image.title="sockerless connect" org.opencontainers.image.licenses="Apache-2.0"
# Python's images come without compiled modules of the standard library, and nobody may write them later: each start
# would compile what it imports, four times the time. What no process here imports is left out.
RUN python -m compileall -q -j 0 -x '/(site-packages|ensurepip|idlelib|lib2to3|pydoc_data|tkinter|turtledemo|unittest)/' \
        "$(python -c 'import os; print(os.path.dirname(os.__file__))')"
COPY --from=build /opt/sockerless /opt/sockerless
ENV PATH=/opt/sockerless/bin:$PATH PYTHONPATH=/opt/sockerless/lib PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp
USER 65532:65532
WORKDIR /tmp
EXPOSE 2375
# The endpoint is $SOCKERLESS_URL, or the first argument.
ENTRYPOINT ["python", "-m", "agent_gateway.connector.cli"]
CMD ["--listen", "tcp://0.0.0.0:2375", "--allow-network-clients"]

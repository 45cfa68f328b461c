# Image with the operator binary only; build it with `make image`. For another architecture: docker buildx build --platform linux/arm64 .
FROM --platform=$BUILDPLATFORM docker.io/library/rust:1.95-slim-trixie AS build
ARG TARGETARCH
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# Cross-compilation needs the compiler of the target architecture. Package versions come from the base image and are not pinned.
# hadolint ignore=DL3008
RUN case "$(uname -m)-${TARGETARCH}" in \
      x86_64-arm64) compiler=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross) ;; \
      aarch64-amd64) compiler=(gcc-x86-64-linux-gnu libc6-dev-amd64-cross) ;; \
      *) compiler=() ;; \
    esac \
    && apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates "${compiler[@]}" \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN image/build "${TARGETARCH}" /out/kthena-keda

FROM scratch
ARG VERSION=0.2.0
LABEL org.opencontainers.image.title="kthena-keda" \
      org.opencontainers.image.description="Generates KEDA ScaledObjects for Kthena ModelServings from one annotation" \
      org.opencontainers.image.source="https://github.com/volcano-sh/kthena-keda" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
# CA certificates for a Prometheus whose TLS certificate is from a public CA.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/kthena-keda /kthena-keda
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/kthena-keda"]
CMD ["run"]

# The static binary and what is linked into it, built without Rust on the host, in an image of nothing else: docker/build --binary.
ARG RUST_IMAGE=rust:1-alpine
FROM $RUST_IMAGE AS build
ARG SOURCE_DATE_EPOCH
RUN apk add --no-cache musl-dev
COPY . /src
WORKDIR /src
RUN . docker/static.sh && static_build "$(static_target)" && install "$(static_place "$(static_target)")/hermes-sup" / && \
    docker/bill "$(static_target)" >/hermes-sup.cdx.json

FROM scratch AS binary
COPY --from=build /hermes-sup /hermes-sup
COPY --from=build /hermes-sup.cdx.json /hermes-sup.cdx.json
ENTRYPOINT ["/hermes-sup"]

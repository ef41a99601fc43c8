# The static binary, built without Rust on the host, in an image of nothing else: docker/build --binary.
ARG RUST_IMAGE=rust:1-alpine
FROM $RUST_IMAGE AS build
RUN apk add --no-cache musl-dev
COPY . /src
WORKDIR /src
RUN cargo build --release && cp target/release/hermes-sup /hermes-sup

FROM scratch AS binary
COPY --from=build /hermes-sup /hermes-sup
ENTRYPOINT ["/hermes-sup"]

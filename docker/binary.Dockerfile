# The static binary, built without Rust on the host, in an image of nothing else: docker/build --binary.
FROM rust:1-alpine AS build
RUN apk add --no-cache musl-dev
COPY . /src
WORKDIR /src
RUN cargo build --release && cp target/release/hermes-sup /hermes-sup

FROM scratch AS binary
COPY --from=build /hermes-sup /hermes-sup
ENTRYPOINT ["/hermes-sup"]

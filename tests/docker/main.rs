//! The docker tier: the image with the real Hermes gateway, in a real engine, run in every way that users run it.
//! `tests/run docker` provides the engine and the image.

mod attacks;
mod capabilities;
mod cli;
mod entrypoint;
mod gateways;
mod harness;
mod health;
mod image;
mod own_image;
mod ownership;
mod profiles;
mod roots;
mod streams;
mod supervision;
mod topologies;
mod upstream;
mod volumes;
mod world;

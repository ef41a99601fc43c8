//! The names under which the binary stands in for other tools: thin clients of the control socket, without any
//! supervision of their own.

pub mod scope;

//! Real clients pull through the real program from a real registry; and what else needs the program as a process.
#![expect(
    clippy::unwrap_used,
    reason = "all of this crate is tests: a surprise ends the test at the line where it shows"
)]

mod bad_configuration;
mod buildah;
mod containerd;
mod containers_home;
mod dockerd;
mod health;
mod image;
mod outputs;
mod podman;
mod pull;
mod request_counts;
mod shutdown;
mod skopeo;
mod source;
mod two_processes;

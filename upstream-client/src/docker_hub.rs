//! The hosts of Docker Hub, whose names have exceptions: `library/` for official images, and a token service elsewhere.

/// Hosts under which clients and configurations name Docker Hub's registry.
pub const DOCKER_HUB_HOSTS: [&str; 3] = ["docker.io", "registry-1.docker.io", "index.docker.io"];

/// Host of Docker Hub's token service.
pub(crate) const DOCKER_HUB_TOKEN_HOST: &str = "auth.docker.io";

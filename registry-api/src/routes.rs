//! The routes of registry-api, laid out as their paths are.

pub(crate) mod admin;
pub(crate) mod v2;

//! Starts the PostgreSQL server of a test run. It is a setup script of nextest (`.config/nextest.toml`).

use std::{fs::OpenOptions, io::Write, os::unix::process::parent_id};

use anyhow::Context;
use shared_models::test_postgres::{PORT_VARIABLE, TestPostgres};

fn main() -> anyhow::Result<()> {
    let variables =
        std::env::var_os("NEXTEST_ENV").context("NEXTEST_ENV is not set: nextest starts this program")?;
    let port = TestPostgres::start_for(parent_id())?;
    let mut variables = OpenOptions::new().append(true).open(variables)?;
    writeln!(variables, "{PORT_VARIABLE}={port}")?;
    Ok(())
}

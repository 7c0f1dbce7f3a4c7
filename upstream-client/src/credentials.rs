//! The login at an upstream, and where its password is kept.

use std::{fmt, io, path::PathBuf, process::Stdio, time::Duration};

use secrecy::SecretString;
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
    time::timeout,
};

use crate::UpstreamError;

/// A login at an upstream. It is sent to that upstream and to the token realms allowed for it, nowhere else.
#[derive(Clone)]
pub enum Credentials {
    /// A password or access token that does not change.
    Fixed {
        /// The user name.
        username: String,
        /// The password or access token.
        password: SecretString,
    },
    /// A password in a file, which is read for each login: another program may renew it.
    File {
        /// The user name.
        username: String,
        /// The path of the file.
        path: PathBuf,
    },
    /// A program with the protocol of Docker's credential helpers, which is run for each login.
    Helper {
        /// The name or the path of the program.
        program: String,
        /// The name that the program knows the registry by.
        server: String,
    },
}

/// A login as it is at one moment.
pub(crate) struct Login {
    pub(crate) username: String,
    pub(crate) password: SecretString,
}

/// The maximum size of a password, and of the output of a credential helper, in bytes.
const MAX_BYTES: u64 = 64 * 1024;

/// The time limit of a credential helper.
const HELPER_TIMEOUT: Duration = Duration::from_secs(30);

/// The user name with which a credential helper marks an identity token, which is not a password.
const IDENTITY_TOKEN: &str = "<token>";

impl Credentials {
    /// The user name, where the configuration contains it.
    pub(crate) fn username(&self) -> Option<&str> {
        match self {
            Self::Fixed { username, .. } | Self::File { username, .. } => Some(username),
            Self::Helper { .. } => None,
        }
    }

    /// Reads the login.
    ///
    /// # Errors
    /// [`UpstreamError::LoginUnreadable`].
    pub(crate) async fn read(&self) -> Result<Login, UpstreamError> {
        match self {
            Self::Fixed { username, password } => {
                Ok(Login { username: username.clone(), password: password.clone() })
            }
            Self::File { username, path } => {
                let password = read_file(path).await.map_err(|error| UpstreamError::LoginUnreadable {
                    reason: format!("{}: {error}", path.display()),
                })?;
                Ok(Login { username: username.clone(), password })
            }
            Self::Helper { program, server } => run_helper(program, server)
                .await
                .map_err(|reason| UpstreamError::LoginUnreadable { reason: format!("{program}: {reason}") }),
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Credentials")
    }
}

/// The contents of a file without the end of the last line.
async fn read_file(path: &PathBuf) -> io::Result<SecretString> {
    let mut text = String::new();
    tokio::fs::File::open(path).await?.take(MAX_BYTES).read_to_string(&mut text).await?;
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is empty"));
    }
    Ok(password.into())
}

#[derive(Deserialize)]
struct HelperOutput {
    #[serde(rename = "Username")]
    username: String,
    #[serde(rename = "Secret")]
    secret: String,
}

/// The login from `PROGRAM get`, which reads the name of the registry from its input.
async fn run_helper(program: &str, server: &str) -> Result<Login, String> {
    let output = timeout(HELPER_TIMEOUT, async {
        let mut child = Command::new(program)
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        if let Some(mut input) = input {
            // A program that does not read its input says why in its output.
            let _ = input.write_all(server.as_bytes()).await;
        }
        let mut text = Vec::new();
        if let Some(output) = output {
            output.take(MAX_BYTES).read_to_end(&mut text).await?;
        }
        Ok::<_, io::Error>((child.wait().await?, text))
    });
    let (status, text) = output
        .await
        .map_err(|_| format!("no login within {} s", HELPER_TIMEOUT.as_secs()))?
        .map_err(|error| error.to_string())?;
    if !status.success() {
        // The protocol has its errors in the output.
        let message: String = String::from_utf8_lossy(&text).trim().chars().take(200).collect();
        return Err(format!("{status}: {message}"));
    }
    // The underlying error may quote the output, and with it a secret.
    let login: HelperOutput =
        serde_json::from_slice(&text).map_err(|_| "the output is not a login".to_owned())?;
    if login.username == IDENTITY_TOKEN {
        return Err("the login is an identity token, which is not supported".to_owned());
    }
    if login.username.contains(':') {
        return Err("the user name contains a colon".to_owned());
    }
    Ok(Login { username: login.username, password: login.secret.into() })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt, path::Path};

    use secrecy::ExposeSecret;

    use super::*;

    async fn read(credentials: &Credentials) -> Result<(String, String), String> {
        let login = credentials.read().await.map_err(|error| error.to_string())?;
        Ok((login.username, login.password.expose_secret().to_owned()))
    }

    #[tokio::test]
    async fn a_file_is_read_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        let credentials = Credentials::File { username: "user".to_owned(), path: path.clone() };
        for password in ["one", "two"] {
            fs::write(&path, format!("{password}\r\n")).unwrap();
            assert_eq!(read(&credentials).await, Ok(("user".to_owned(), password.to_owned())));
        }
        fs::write(&path, "\n").unwrap();
        let expected = format!("failed to read the configured login: {}: the file is empty", path.display());
        assert_eq!(read(&credentials).await, Err(expected));
        fs::remove_file(&path).unwrap();
        assert!(read(&credentials).await.unwrap_err().contains("No such file"));
    }

    fn helper(folder: &Path, script: &str) -> Credentials {
        let path = folder.join("docker-credential-test");
        let _ = fs::remove_file(&path);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        Credentials::Helper { program: path.display().to_string(), server: "registry.test".to_owned() }
    }

    #[tokio::test]
    async fn a_helper_is_asked_for_the_login_of_the_registry() {
        let folder = tempfile::tempdir().unwrap();
        let answers = r#"read server; printf '{"ServerURL":"%s","Username":"%s","Secret":"%s"}' "$server" "$1" "$server""#;
        let login = read(&helper(folder.path(), answers)).await;
        assert_eq!(login, Ok(("get".to_owned(), "registry.test".to_owned())));
        for (script, reason) in [
            (
                "echo credentials not found in native keychain; exit 1",
                "exit status: 1: credentials not found",
            ),
            ("echo hidden", "the output is not a login"),
            (r#"echo '{"Username":"<token>","Secret":"hidden"}'"#, "identity token"),
            (r#"echo '{"Username":"a:b","Secret":"hidden"}'"#, "contains a colon"),
        ] {
            let error = read(&helper(folder.path(), script)).await.unwrap_err();
            assert!(error.contains(reason) && !error.contains("hidden"), "{error}");
        }
        let missing =
            Credentials::Helper { program: "docker-credential-none".to_owned(), server: String::new() };
        assert!(read(&missing).await.unwrap_err().contains("docker-credential-none: No such file"));
    }
}

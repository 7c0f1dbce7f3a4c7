//! Where the program lies that is tested.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::SystemTime;

/// How it is made.
const BUILD: &str = "run `cargo build -p tidegate` (scripts/test does)";

/// The program `tidegate`, next to the directory of the running test.
///
/// # Panics
/// When it is missing, or was older than its sources as the tests began: cargo does not build it for these tests, and
/// what they say would be true of another program.
pub fn path() -> &'static Path {
    // Looked at once, so that one may go on editing while the tests run.
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    FOUND.get_or_init(find).as_ref().unwrap_or_else(|problem| panic!("{problem}: {BUILD}"))
}

fn find() -> Result<PathBuf, String> {
    // target/PROFILE/deps/TEST
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).expect("a test lies two folders down");
    let program = profile.join("tidegate");
    let built = changed(&program).ok_or_else(|| format!("this test needs {}", program.display()))?;
    // cargo writes there what the program was built from.
    let sources = std::fs::read_to_string(profile.join("tidegate.d")).unwrap_or_default();
    match sources_in(&sources).find(|source| changed(source).is_none_or(|at| at > built)) {
        Some(source) => {
            Err(format!("{} has changed since {} was built", source.display(), program.display()))
        }
        None => Ok(program),
    }
}

fn changed(file: &Path) -> Option<SystemTime> {
    file.metadata().and_then(|metadata| metadata.modified()).ok()
}

/// The files behind the colon of a rule as in a makefile, where a space within a path has a backslash before it.
fn sources_in(rule: &str) -> impl Iterator<Item = PathBuf> {
    let (_, sources) = rule.lines().next().and_then(|line| line.split_once(": ")).unwrap_or_default();
    let sources = sources.replace("\\ ", "\0");
    let paths: Vec<PathBuf> =
        sources.split_whitespace().map(|path| PathBuf::from(path.replace('\0', " "))).collect();
    paths.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_read_from_a_rule() {
        let rule = "/t/debug/tidegate: /w/a.rs /w/with\\ space/b.rs /w/c.toml\n";
        let expected = ["/w/a.rs", "/w/with space/b.rs", "/w/c.toml"].map(PathBuf::from);
        assert!(sources_in(rule).eq(expected));
        assert_eq!(sources_in("").count(), 0);
    }
}
